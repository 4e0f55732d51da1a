"""How far trust can be trusted: ``python -m benchmarks.trust FOLDER collect fit report``."""
