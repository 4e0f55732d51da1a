"""Tools: what models may have done for them, each with a schema, limits and a word on what it changes."""
