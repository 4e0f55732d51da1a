"""How far trust can be trusted: ``python -m benchmarks.trust collect|fit|report``. See ``docs/benchmarks.md``."""
