"""Pagoda: build, tune, serve, guard and watch applications on large language models."""

__version__ = "0.1.0"
