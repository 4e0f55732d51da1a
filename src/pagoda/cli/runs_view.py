"""How runs look: tables and a progress bar on a terminal, plain lines in a pipe, JSON lines for machines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pagoda.core.runs import Comparison, Run, RunEvent
from pagoda.core.runs.metrics import Summary

_COLOURS = {"running": "cyan", "done": "green", "failed": "red", "broken": "red", "cancelled": "yellow"}
_PLAIN_SECONDS = 5.0
_DASH = "-"


class View(Protocol):
    """Shows what happens in a run."""

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: RunEvent) -> None:
        """Show an event."""

    def say(self, sentence: str) -> None:
        """Tell the person something that is not part of the run."""


def view_for(run_id: str, *, as_json: bool = False) -> View:
    """The view that suits standard output."""
    if as_json:
        return JsonView()
    return TerminalView(run_id) if sys.stdout.isatty() else PlainView(run_id)


class _Plain:
    def __enter__(self) -> _Plain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def say(self, sentence: str) -> None:
        """Aside, where it cannot be taken for output."""
        print(sentence, file=sys.stderr, flush=True)


class JsonView(_Plain):
    """One JSON object a line."""

    def show(self, event: RunEvent) -> None:
        """Print it as it is."""
        print(json.dumps(event.to_json(), ensure_ascii=False), flush=True)


class PlainView(_Plain):
    """One line an event; progress of one stage at most every few seconds."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._stage = ""
        self._shown = float("-inf")

    def show(self, event: RunEvent) -> None:
        """Print a line, if this event deserves one."""
        if event.type == "progress" and not self._is_due(event.data):
            return
        print(_line(event, self._run_id), flush=True)

    def _is_due(self, data: Mapping[str, object]) -> bool:
        moment = time.monotonic()
        complete = data["done"] == data["total"]
        if data["stage"] == self._stage and not complete and moment - self._shown < _PLAIN_SECONDS:
            return False
        self._stage, self._shown = str(data["stage"]), moment
        return True


class TerminalView:
    """A progress bar with the newest metrics beside it; everything else scrolls by above."""

    def __init__(self, run_id: str, console: Console | None = None) -> None:
        self._run_id = run_id
        self._console = console or Console(highlight=False)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}", style="cyan", markup=False),
            console=self._console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._stage = ""
        self._numbers = ""

    def __enter__(self) -> TerminalView:
        self._console.print(f"[bold]{self._run_id}[/bold]")
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, event: RunEvent) -> None:
        """Move the bar, or print a line above it."""
        if event.type == "progress":
            self._move(event.data)
        elif event.type == "metric":
            self._numbers = f"step {event.data['step']}  {_numbers(event.data['values'])}"
            if self._task is not None:
                self._progress.update(self._task, numbers=self._numbers)
        elif event.type == "end":
            self._progress.stop()
            if self._numbers:
                self._console.print(self._numbers, style="cyan", markup=False)
            colour = _COLOURS.get(str(event.data["status"]), "yellow")
            self._console.print(f"[{colour}]{escape(_line(event, self._run_id))}[/{colour}]")
        else:
            self._console.print(_line(event, self._run_id), markup=False)

    def say(self, sentence: str) -> None:
        """Above the bar."""
        self._console.print(sentence, style="yellow", markup=False)

    def _move(self, data: Mapping[str, object]) -> None:
        total, done = data["total"], data["done"]
        if self._task is None or data["stage"] != self._stage:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._stage = str(data["stage"])
            self._task = self._progress.add_task(self._stage, total=None, numbers=self._numbers)
        self._progress.update(
            self._task,
            total=total if isinstance(total, int) else None,
            completed=done if isinstance(done, int) else 0,
        )


def print_runs(runs: Sequence[Run]) -> None:
    """A table of runs."""
    rows = [
        (run.id, run.kind, run.status, _share(run), _moment(run.created), _duration(run), run.name or run.error or "")
        for run in runs
    ]
    if not rows:
        print("There are no runs.")
        return
    _print_table(("RUN", "KIND", "STATUS", "PROGRESS", "CREATED", "TIME", "NAME"), rows, colour_column=2)


def print_run(run: Run) -> None:
    """Everything about a run, a line each."""
    rows = [
        ("run", run.id),
        ("kind", run.kind),
        ("name", run.name),
        ("status", run.status),
        ("error", run.error or ""),
        ("progress", f"{run.progress.stage} {_share(run)}" if run.progress else ""),
        ("created", _moment(run.created)),
        ("started", _moment(run.started)),
        ("finished", _moment(run.finished)),
        ("time", _duration(run)),
        ("attempts", str(run.attempt)),
        ("seed", str(run.seed)),
        ("parent", run.parent or ""),
        ("directory", str(run.directory)),
        ("config", json.dumps(run.config, ensure_ascii=False, indent=2) if run.config else ""),
        ("result", json.dumps(run.result, ensure_ascii=False, indent=2) if run.result is not None else ""),
        ("versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
    ]
    for name, value in rows:
        if value and value != _DASH:
            print(f"{name:<10} {value}".replace("\n", "\n" + " " * 11))
    hints = {
        "running": f"watch it with `pagoda runs watch {run.id}`",
        "failed": f"the log is {run.directory / 'log.txt'}; continue with `pagoda runs resume {run.id}`",
        "cancelled": f"continue with `pagoda runs resume {run.id}`",
        "interrupted": f"continue with `pagoda runs resume {run.id}`",
    }
    if run.status in hints:
        print(f"{'next':<10} {hints[run.status]}")


def print_comparison(comparison: Comparison) -> None:
    """Differences of the making, then metrics."""
    a, b = comparison.a, comparison.b
    rows = [
        (key, *(_value(pair[side]) if side in pair else _DASH for side in ("a", "b")))
        for key, pair in comparison.differences.items()
    ]
    _print_table(("", a.id, b.id), rows or [("no differences", "", "")])
    if comparison.metrics:
        print()
        measured = [
            (name, *(_summary(pair[side]) if side in pair else _DASH for side in ("a", "b")))
            for name, pair in comparison.metrics.items()
        ]
        _print_table(("METRIC  last (lowest .. highest)", a.id, b.id), measured)


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, colour_column: int | None = None) -> None:
    if not sys.stdout.isatty():
        widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
        for row in (heads, *rows):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, head in enumerate(heads):
        table.add_column(head, no_wrap=number == 0, overflow="fold")
    for row in rows:
        cells = [escape(cell) for cell in row]
        if colour_column is not None:
            cells[colour_column] = f"[{_COLOURS.get(row[colour_column], 'yellow')}]{cells[colour_column]}[/]"
        table.add_row(*cells)
    Console(highlight=False).print(table)


def _line(event: RunEvent, run_id: str) -> str:
    data = event.data
    moment = _clock(event.time)
    if event.type == "progress":
        return f"{moment} {data['stage']} {data['done']}" + (f"/{data['total']}" if data["total"] is not None else "")
    if event.type == "metric":
        return f"{moment} step {data['step']}  {_numbers(data['values'])}"
    if event.type == "status":
        again = f" (attempt {data['attempt']})" if data.get("attempt", 1) > 1 else ""
        return f"{moment} {data['status']}{again}"
    if event.type == "end":
        reason = f": {data['error']}" if data["error"] else "."
        more = f" Continue with `pagoda runs resume {run_id}`."
        resumable = data["status"] in ("failed", "cancelled", "interrupted")
        return f"The run is {data['status']}{reason}{more if resumable else ''}"
    details = " ".join(f"{name}={_value(value)}" for name, value in data.items())
    return f"{moment} {event.type} {details}".rstrip()


def _numbers(values: Mapping[str, object]) -> str:
    return "  ".join(f"{name} {_value(value)}" for name, value in values.items())


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _summary(summary: Summary) -> str:
    return f"{summary.last:.6g} ({summary.low:.6g} .. {summary.high:.6g})"


def _share(run: Run) -> str:
    if run.progress is None:
        return _DASH
    if not run.progress.total:
        return str(run.progress.done)
    return f"{run.progress.done}/{run.progress.total} ({100 * run.progress.done // run.progress.total}%)"


def _duration(run: Run) -> str:
    if not run.seconds:
        return _DASH
    minutes, seconds = divmod(run.seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{int(seconds):02}" if hours or minutes else f"{seconds:.1f}s"


def _moment(moment: datetime | None) -> str:
    return _DASH if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def _clock(text: str) -> str:
    return f"{datetime.fromisoformat(text).astimezone():%H:%M:%S}"
