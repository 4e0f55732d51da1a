"""``python -m benchmarks [NAME ...]``: run benchmarks, all of them without a name."""

from __future__ import annotations

import asyncio
import json
import sys
from importlib import import_module

NAMES = (
    "startup",
    "chat",
    "embeddings",
    "waiting",
    "neighbours",
    "prefix",
    "admission",
    "cache",
    "engines",
    "gateway",
    "routing",
    "affinity",
    "chaos",
    "panels",
    "prompt_rendering",
    "prompt_comparison",
    "experiments",
