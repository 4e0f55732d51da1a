"""How far fetching a model has come: bars on a terminal, lines into a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pagoda.core.ports import Progress

STAGES = {
    "connect": "connecting",
    "download": "downloading",
    "check": "checking",
    "unpack": "unpacking",
    "copy": "copying",
    "read": "reading",
    "build": "building",
    "wait": "waiting for another process",
}


@contextmanager
def progress() -> Iterator[Callable[[str], Progress]]:
    """A bar a model on a terminal; into a pipe, one line for each stage."""
    if not sys.stderr.isatty():
        yield _plain_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.fields[model]} {task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def show(model: str) -> Any:
            task = bars.add_task("", total=None, model=model)
            last = [""]

            def report(stage: str, done: int, total: int | None) -> None:
                if stage != last[0]:
                    last[0] = stage
                    bars.reset(task, total=total, description=STAGES.get(stage, stage))
                bars.update(task, completed=done, total=total)

            return report

        yield show


def _plain_progress(model: str) -> Progress:
    last = [""]

    def report(stage: str, done: int, total: int | None) -> None:
        if stage != last[0]:
            last[0] = stage
            print(f"{model}: {STAGES.get(stage, stage)}", file=sys.stderr, flush=True)

    return report
