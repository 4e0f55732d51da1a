"""Prompts and answers, kept only where settings ask for it: masked, for some days, and deleted by key or user."""
