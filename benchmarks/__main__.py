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
    "ingestion",
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
    "agents",
    "prompt_rendering",
    "prompt_comparison",
    "experiments",
    "retrieval",
    "search",
    "answers",
    "training.padding",
    "training.sst2",
)


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"There is no benchmark {unknown[0]}; there are {', '.join(NAMES)}.", file=sys.stderr)
        return 2
    for name in names or NAMES:
        figures = asyncio.run(import_module(f"benchmarks.{name}").measure())
        print(json.dumps({"benchmark": name, **figures}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
