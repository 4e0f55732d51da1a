"""From what a trainer left to files that serve: adapters merged, GGUF written, and proof that the answers stayed."""
