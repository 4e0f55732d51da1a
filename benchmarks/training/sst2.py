"""SmolLM2 on SST-2 as prompt and completion: accuracy before, after LoRA, after full training, some hundred steps each.

A row counts as right when greedy decoding would write its completion and end there. About 15 minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.training.rows import home_settings, write_sst2

STEPS, BATCH, HELD = 200, 16, 300
RATES = {"lora": 5e-4, "full": 5e-5}


async def measure() -> dict[str, Any]:
    """Both methods, each in a process of its own."""
    found: dict[str, Any] = {}
    for method in RATES:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.training.sst2", method], capture_output=True, text=True, check=True
        )
        found[method] = json.loads(done.stdout.splitlines()[-1])
    lora, full = (found[method]["after"]["eval_exact"] for method in RATES)
    return {**found, "before": found["lora"]["before"]["eval_exact"], "lora": lora, "full": full, "apart": full - lora}


def _main(method: str, steps: int, batch: int, held: int) -> None:
    from pagoda.model.training.desk import FolderDesk
    from pagoda.model.training.recipe import recipe_from
    from pagoda.model.training.work import train

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data = {
            "train": str(write_sst2(folder / "train.jsonl", "train", steps * batch)),
            "validation": str(write_sst2(folder / "held.jsonl", "dev", held)),
        }
        recipe = recipe_from(
            {
                "model": "smollm2-135m-instruct", "data": data, "method": method, "max_length": 128, "steps": steps,
                "batch_size": batch, "learning_rate": RATES[method], "schedule": "cosine", "evaluate_every": steps,
                "threads": int(os.environ.get("OMP_NUM_THREADS", "0")),
            }
        )  # fmt: skip
        outcome = train(recipe, FolderDesk(folder / "out", 1, home_settings(), writes=True))
        print(json.dumps({name: outcome[name] for name in ("before", "after", "seconds", "steps")}))


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=RATES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--held", type=int, default=HELD)
    given = parser.parse_args()
    _main(given.method, given.steps, given.batch, given.held)
