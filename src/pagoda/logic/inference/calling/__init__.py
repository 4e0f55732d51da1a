"""Tool calls of models that have no form of their own for them: the prompt, the constrained form, the check."""
