"""Retrieval with exact sources: documents read, split, kept, searched, and answered from."""
