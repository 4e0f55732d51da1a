"""What ``pagoda runs exec`` is to a search in tests: a training without a model, whose loss its learning rate tells."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

from pagoda.core.runs import RunContext, RunRegistry, execute
from pagoda.core.settings import Settings


def train(context: RunContext) -> dict[str, Any]:
    """Best at a learning rate of 1e-3; above 0.05 it fails."""
    rate = context.config["learning_rate"]
    if rate > 0.05:
        raise ValueError("the loss is not a number")
    loss = abs(math.log10(rate) + 3) + context.config["lora"]["rank"] / 1000
    for step in range(1, 4):
        context.metric(step, eval_loss=loss + 1 / step)
        context.progress("training", step, 3)
    (context.checkpoints / "checkpoint-3").mkdir(exist_ok=True)
    return {"after": {"eval_loss": loss}, "pid": os.getpid(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}


if __name__ == "__main__":
    home = Path(sys.argv[sys.argv.index("--home") + 1])
    execute(sys.argv[1], RunRegistry({"sft": train}), Settings(home=home))
