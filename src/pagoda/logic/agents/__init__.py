"""Agents: a model that acts through tools over several steps, each step written down before and after it happens."""
