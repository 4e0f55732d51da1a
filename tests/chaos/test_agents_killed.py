"""Agents killed before and after every write in turn: no effect happens twice, and what is unknown is said."""

from __future__ import annotations

import multiprocessing
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.chaos.agent_child import Order, perform

WRITES = 8
"""Of a run before it is left: made, taken, and the beginning and end of a turn, a call and a turn."""


def work(home: Path, tool: str, run: str | None = None, **more: object) -> int | None:
    """Have a child work; its exit status."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.chaos.agent_child"])
    (home / "told").unlink(missing_ok=True)
    child = context.Process(target=perform, args=(Order(str(home), tool, run, **more),))  # type: ignore[arg-type]
    child.start()
    child.join(60)
    return child.exitcode


def told(home: Path) -> str:
    """What the last child said of the run."""
    return (home / "told").read_text()


def run_of(home: Path) -> str | None:
    if not (home / "pagoda.db").exists():
        return None
    with sqlite3.connect(home / "pagoda.db") as database:
        row = database.execute("select run_id from agents").fetchone()
    return None if row is None else str(row[0])


def effects(home: Path) -> int:
    path = home / "effects"
    return len(path.read_text().split()) if path.exists() else 0


@pytest.mark.parametrize("tool", ["blind", "receipted"])
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_every_write_in_turn_no_effect_happens_twice(tmp_path: Path, tool: str, after: bool) -> None:
    for number in range(1, WRITES + 2):
        home = tmp_path / str(number)
        home.mkdir()
        assert work(home, tool, write=number, after=after) == -signal.SIGKILL, "there are fewer writes than are tested"
        run = run_of(home)
        if run is None:
            assert (number, after) == (1, False)
            continue
        assert work(home, tool, run) == 0
        if number == WRITES + 1 and after:
            assert "is done" in told(home)
            assert effects(home) == 1
            continue
        assert told(home).startswith("done"), (number, told(home))
        uncertain = "call.uncertain" in told(home)
        assert effects(home) == 1 or (uncertain and effects(home) == 0), number
        if uncertain:
            assert tool == "blind"
            assert "not known whether" in told(home)
    assert work(tmp_path, tool, write=WRITES + 2, after=after) == 0, "there are more writes than are tested"


@pytest.mark.parametrize(("tool", "event"), [("blind", "call.uncertain"), ("receipted", "call.done")])
def test_killed_inside_the_tool_after_its_effect(tmp_path: Path, tool: str, event: str) -> None:
    assert work(tmp_path, tool, dies_in_tool=True) == -signal.SIGKILL
    assert effects(tmp_path) == 1
    assert work(tmp_path, tool, run_of(tmp_path)) == 0
    assert told(tmp_path).startswith("done")
    assert event in told(tmp_path)
    assert effects(tmp_path) == 1


def test_an_approval_given_later_and_killed_meanwhile_acts_once(tmp_path: Path) -> None:
    assert work(tmp_path, "asked") == 0
    assert told(tmp_path).startswith("waiting")
    assert effects(tmp_path) == 0
    run = run_of(tmp_path)
    assert work(tmp_path, "asked", run) == 0
    assert "waits for approval" in told(tmp_path)
    assert work(tmp_path, "asked", run, approve=True, write=4) == -signal.SIGKILL
    assert work(tmp_path, "asked", run) == 0
    assert told(tmp_path).startswith("done")
    assert effects(tmp_path) == 1
