"""Prompts as versioned data: read, kept, found by version or label, filled in, and asked with their techniques."""
