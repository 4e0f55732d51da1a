"""SmolLM2 on SST-2 as prompt and completion: accuracy before, after LoRA, after full training, and of the served file.

A row counts as right when greedy decoding would write its completion and end there. The served file is an F16 export,
asked through the service, and a row of it is right when its answer is the completion and ends there. About 15 minutes
on two idle cores.
"""

from __future__ import annotations

import argparse
import asyncio
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
BASE = "smollm2-135m-instruct-hf"
_AT_ONCE = 4


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
        rows = write_sst2(folder / "held.jsonl", "dev", held)
        data = {"train": str(write_sst2(folder / "train.jsonl", "train", steps * batch)), "validation": str(rows)}
        recipe = recipe_from(
            {
                "model": "smollm2-135m-instruct", "data": data, "method": method, "max_length": 128, "steps": steps,
                "batch_size": batch, "learning_rate": RATES[method], "schedule": "cosine", "evaluate_every": steps,
                "threads": int(os.environ.get("OMP_NUM_THREADS", "0")),
            }
        )  # fmt: skip
        outcome = train(recipe, FolderDesk(folder / "out", 1, home_settings(), writes=True))
        figures = {name: outcome[name] for name in ("before", "after", "seconds", "steps", "device", "precision")}
        print(json.dumps({**figures, "served": _served(str(outcome["saved"]), f"sst2-{method}", rows)}))


def _served(saved: str, name: str, rows: Path) -> float:
    """Share of the held rows that the exported and served model answers exactly."""
    command = [sys.executable, "-m", "pagoda", "export", saved, "--base", BASE, "--name", name]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return asyncio.run(_exact(name, [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]))


async def _exact(model: str, rows: list[dict[str, str]]) -> float:
    from pagoda.application.platform import Platform
    from pagoda.core.types import Call, Generation, Sampling
    from pagoda.logic.inference.answer import collect

    platform = Platform(home_settings(), os.environ)
    await platform.start()
    turn = asyncio.Semaphore(_AT_ONCE)

    async def right(row: dict[str, str]) -> bool:
        wanted = Generation(model=model, prompt=row["prompt"], sampling=Sampling(temperature=0.0), max_tokens=8)
        async with turn:
            answer = await collect(platform.inference, wanted, Call(purpose="evaluation"))
        return answer.text == row["completion"] and answer.choices[0].finish == "stop"

    try:
        return sum(await asyncio.gather(*(right(row) for row in rows))) / len(rows)
    finally:
        await platform.stop()


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=RATES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--held", type=int, default=HELD)
    given = parser.parse_args()
    _main(given.method, given.steps, given.batch, given.held)
