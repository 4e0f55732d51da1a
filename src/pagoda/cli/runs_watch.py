"""Watching a run from a terminal: what Ctrl-C means, and what the exit status says."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pagoda.cli.runs_view import View
from pagoda.core.errors import Conflict
from pagoda.core.runs import RunEvent, Runs

AGAIN_SECONDS = 3.0
"""How long after Ctrl-C another one means to cancel the run."""


def follow_with(runs: Runs, run_id: str, view: View, *, after: str | None = None) -> int:
    """Show the run in ``view``; 0 when it is done or the watcher left, 1 when it ended otherwise."""
    place, status = after, "running"
    try:
        with view:
            for event in runs.watch(run_id, after=after):
                place, status = event.id, _show(view, event, status)
    except KeyboardInterrupt:
        if not _pressed_again(view, run_id):
            return 0
        status = _cancel(runs, run_id, view, place)
    return 0 if status == "done" else 1


def _show(view: View, event: RunEvent, status: str) -> str:
    view.show(event)
    return str(event.data["status"]) if event.type == "end" else status


def _pressed_again(view: View, run_id: str) -> bool:
    try:
        view.say(
            f"The run goes on; watch it again with `pagoda runs watch {run_id}`. "
            f"Press Ctrl-C once more within {AGAIN_SECONDS:g} s to cancel it."
        )
        time.sleep(AGAIN_SECONDS)
    except KeyboardInterrupt:
        return True
    return False


def _cancel(runs: Runs, run_id: str, view: View, place: str | None) -> str:
    try:
        runs.cancel(run_id)
        view.say("Cancelling; the run stops at its next step.")
    except Conflict as error:
        view.say(error.message)  # it ended while we asked
    status = "running"
    events: Iterator[RunEvent] = runs.watch(run_id, after=place)
    try:
        for event in events:
            status = _show(view, event, status)
    except KeyboardInterrupt:
        view.say(f"The run was asked to stop; end it at once with `pagoda runs cancel {run_id} --now`.")
    return status
