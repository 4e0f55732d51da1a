"""What precedes the import of torch: how its threads wait must be said first. And the kind of run ``sft``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pagoda.core.errors import Unavailable
from pagoda.core.runs import RunContext
from pagoda.core.types import Json


def run_sft(context: RunContext) -> Mapping[str, Json]:
    """Supervised fine-tuning."""
    with importing_torch():
        from pagoda.model.training.recipe import recipe_from  # noqa: PLC0415
        from pagoda.model.training.work import train  # noqa: PLC0415

    return train(recipe_from(context.config), context)


def let_threads_sleep() -> None:
    """A thread of torch that waits for another sleeps instead of spinning: four times as fast on a busy machine
    (docs/log.md). Heard only before torch is imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextmanager
def importing_torch() -> Iterator[None]:
    """While what trains is imported. Raises ``Unavailable`` without torch and its kin."""
    let_threads_sleep()
    try:
        yield
    except ImportError as error:
        raise Unavailable(
            f"Training needs {error.name}, which this install lacks: python -m pip install 'pagoda-llm[train]'.",
            code="not_installed",
            retryable=False,
        ) from error
