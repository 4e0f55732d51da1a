"""Rows padded to 512, four at a time, as tutorials do it, beside our batches: the same rows, as many steps.

Each way trains in a process of its own, so that its peak of memory is its own. Both learn all tokens of the rows.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.training.rows import home_settings, write_sst2

STEPS, BATCH = 8, 4
MODEL = "smollm2-135m-instruct"


async def measure() -> dict[str, Any]:
    """Both ways, one after the other."""
    found = {}
    for way in ("padded", "ours"):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.training.padding", way], capture_output=True, text=True, check=True
        )
        found[way] = json.loads(done.stdout.splitlines()[-1])
    padded, ours = found["padded"], found["ours"]
    return {
        **found,
        "speed": round(ours["supervised_per_second"] / padded["supervised_per_second"], 2),
        "memory": round(padded["peak_mib"] / ours["peak_mib"], 2),
        "target": 5,
    }


def padded(rows: Path, folder: Path, model: Path) -> dict[str, Any]:
    """As in the tutorials: every row padded to 512, a plain Trainer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

    set_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(model)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    data = []
    for line in rows.read_text().splitlines():
        row = json.loads(line)
        coded = tokenizer(
            row["prompt"] + row["completion"] + tokenizer.eos_token,
            truncation=True,
            padding="max_length",
            max_length=512,
            return_tensors="pt",
        )
        ids, mask = coded["input_ids"][0], coded["attention_mask"][0]
        data.append({"input_ids": ids, "attention_mask": mask, "labels": ids.where(mask.bool(), torch.tensor(-100))})
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=BATCH, learning_rate=2e-5, use_cpu=True,
        save_strategy="no", logging_steps=1, report_to=[], disable_tqdm=True, seed=1,
    )  # fmt: skip
    trainer = Trainer(model=base, args=arguments, train_dataset=data)
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    tokens = sum(int((row["labels"][1:] != -100).sum()) for row in data)
    return _told(tokens, seconds, losses)


def ours(rows: Path, folder: Path, model: Path) -> dict[str, Any]:
    """By a recipe, in batches grouped by length."""
    from pagoda.core.runs.metrics import read_metrics
    from pagoda.core.settings import Settings
    from pagoda.model.training.desk import FolderDesk
    from pagoda.model.training.recipe import recipe_from
    from pagoda.model.training.work import train

    recipe = recipe_from(
        {
            "model": str(model), "data": {"train": str(rows)}, "method": "full", "loss_on": "all", "max_length": 512,
            "batch_size": BATCH, "steps": STEPS, "learning_rate": 2e-5, "warmup": 0,
        }
    )  # fmt: skip
    outcome = train(recipe, FolderDesk(folder, 1, Settings(home=folder), writes=True))
    points = read_metrics(folder / "metrics.jsonl")
    losses = [point.values["loss"] for point in points if "loss" in point.values]
    # The time of saving the checkpoint at the end is in it, which the other way does not do.
    return _told(outcome["supervision"]["supervised"], outcome["seconds"], losses)


def _told(tokens: int, seconds: float, losses: list[float]) -> dict[str, Any]:
    return {
        "supervised_tokens": tokens,
        "seconds": round(seconds, 2),
        "supervised_per_second": round(tokens / seconds, 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "losses": [round(loss, 4) for loss in losses],
    }


def _main(way: str) -> None:
    from pagoda.model.catalog.checkpoints import find_checkpoint
    from pagoda.model.catalog.opening import open_shelf

    model = find_checkpoint(open_shelf(home_settings()), MODEL)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = write_sst2(folder / "rows.jsonl", "train", STEPS * BATCH)
        print(json.dumps({"padded": padded, "ours": ours}[way](rows, folder / "out", model)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _main(sys.argv[1])
