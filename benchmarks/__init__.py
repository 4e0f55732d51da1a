"""Benchmarks: one module a claim. Each measures Pagoda beside a peer in the same run and ends with one JSON line.

``python -m benchmarks`` lists them; ``python -m benchmarks chat`` runs one. Speed is never asserted in a test.
"""
