"""Benchmarks for a GPU host, run by hand: CI has none. ``python -m benchmarks.gpu.compare --help`` says how."""
