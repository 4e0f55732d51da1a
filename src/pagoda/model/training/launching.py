"""The kind of run ``sft``, before torch is imported: how its threads wait must be said first."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pagoda.core.runs import RunContext
from pagoda.core.types import Json


def run_sft(context: RunContext) -> Mapping[str, Json]:
    """Supervised fine-tuning."""
    # A thread that waits for another sleeps instead of spinning: four times as fast on a busy machine (docs/log.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from pagoda.model.training.recipe import recipe_from  # noqa: PLC0415
    from pagoda.model.training.work import train  # noqa: PLC0415

    return train(recipe_from(context.config), context)
