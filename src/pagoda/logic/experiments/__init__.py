"""Online experiments: who gets which variant, what became of it, and what may be said about that at any time."""
