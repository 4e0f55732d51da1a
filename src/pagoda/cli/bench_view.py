"""What ``pagoda bench`` shows: a bar while it measures, a table when it has."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pagoda.application.bench.driving import Measured
    from pagoda.application.bench.engine import Watch

_LOOKS_PER_SECOND = 4


@contextmanager
def progress() -> Iterator[Watch]:
    """A bar on a terminal; into a pipe, one line for each load."""
    if not sys.stderr.isatty():
        yield _plain
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class Answered(ProgressColumn):
        """Counted when it is drawn, so that measuring is not slowed by telling of it."""

        def render(self, task: Task) -> Text:
            measured: Measured = task.fields["measured"]
            ended = sum(line.outcome != "unfinished" for line in measured.timelines)
            task.completed = ended
            return Text(f"{ended} of {task.total:g}" if task.total else f"{ended} answered")

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), Answered(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=_LOOKS_PER_SECOND) as bars:

        def show(what: str, measured: Measured, total: int | None) -> None:
            for task in bars.task_ids:
                bars.remove_task(task)
            bars.add_task(what, total=total, measured=measured)

        yield show


def _plain(what: str, measured: Measured, total: int | None) -> None:
    del measured, total
    print(f"measuring: {what}", file=sys.stderr, flush=True)


def print_table(data: dict[str, Any]) -> None:
    """One row a load; times in milliseconds."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 400, markup=False, highlight=False)
    if not data.get("loads"):
        console.print("Nothing was measured.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    generates = data["endpoint"] != "embeddings"
    rows = [_row(load, generates) for load in data["loads"]]
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "load" else "right")
    for row in rows:
        table.add_row(*row.values())
    console.print(f"{data['model']} at {data['url']} ({data['endpoint']}), seed {data['seed']}")
    console.print(table)
    console.print("Times in ms as p50 / p95 / p99, counted from when a request was due.")
    for load in data["loads"]:
        for reason, number in load["failed"].items():
            said = load["failed_said"].get(reason, "")
            console.print(
                f"{_spell_load(load)}: {number} failed: {reason}" + (f", for example: {said}" if said else "")
            )
        if load["client_processor_share"] > 0.9:
            console.print(f"{_spell_load(load)}: measuring itself took a whole core; the target may be faster.")
    if data["interrupted"]:
        console.print("Interrupted: these are the figures until then.")


def _row(load: dict[str, Any], generates: bool) -> dict[str, str]:
    row = {
        "load": _spell_load(load),
        "done": f"{load['done']}/{load['requests']}",
        "req/s": f"{load['requests_per_second']:g}",
    }
    if generates:
        row |= {
            "in": _mean(load["input_tokens"]),
            "out": _mean(load["output_tokens"]),
            "out tok/s": f"{load['output_tokens_per_second']:g}",
        }
    row["total tok/s"] = f"{load['total_tokens_per_second']:g}"
    if generates:
        row |= {
            "first token": _times(load["first_token_seconds"]),
            "between": _times(load["between_frames_seconds"]),
            "a token": _times(load["token_seconds"]),
        }
    row["whole answer"] = _times(load["latency_seconds"])
    if load["goodput"]:
        row["good/s"] = f"{load['goodput']['requests_per_second']:g}"
    if load.get("memory_bytes"):
        from pagoda.model.catalog.disk import spell_bytes

        row["memory"] = " + ".join(f"{spell_bytes(used)} {pool}" for pool, used in load["memory_bytes"].items() if used)
    return row


def _spell_load(load: dict[str, Any]) -> str:
    about = load["load"]
    return (
        f"{about['concurrency']} at once" if about["kind"] == "closed" else f"{about['rate']:g}/s {about['arrivals']}"
    )


def _mean(values: dict[str, float] | None) -> str:
    return f"{values['mean']:g}" if values else "-"


def _times(values: dict[str, float] | None) -> str:
    if values is None:
        return "-"
    return " / ".join(_milliseconds(values[name]) for name in ("p50", "p95", "p99"))


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}" if seconds >= 0.1 else f"{seconds * 1000:.3g}"
