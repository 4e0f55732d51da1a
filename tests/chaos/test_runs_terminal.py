"""``pagoda runs watch`` on a real (pseudo) terminal: the bar, and what Ctrl-C does to the watcher and to the run."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagoda.core.runs import Runs

MakeRuns = Callable[..., Runs]
PROGRAM = Path(__file__).with_name("runs_program.py")


class Terminal:
    """A program on a terminal of 100 columns."""

    def __init__(self, *arguments: str, home: Path) -> None:
        self.master, slave = pty.openpty()
        environment = {**os.environ, "PAGODA_HOME": str(home), "TERM": "xterm-256color", "COLUMNS": "100"}
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            cwd=home,
        )
        os.close(slave)
        self.seen = ""

    def read_until(self, pattern: str) -> str:
        """What was printed, once ``pattern`` is among it."""
        limit = time.monotonic() + 60
        while not re.search(pattern, self.seen):
            assert time.monotonic() < limit, self.seen
            try:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
            except OSError as error:  # how Linux says that the other end is closed
                raise AssertionError(f"ended without {pattern!r}: {self.seen}") from error
        return self.seen

    def press_ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def close(self) -> int:
        while True:
            try:
                chunk = os.read(self.master, 65536)
            except OSError:
                break
            if not chunk:
                break
            self.seen += chunk.decode(errors="replace")
        os.close(self.master)
        return self.process.wait(60)


@pytest.fixture
def terminal(tmp_path: Path, make_runs: MakeRuns) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_terminal(*arguments: str) -> Terminal:
        opened.append(Terminal(*arguments, home=tmp_path))
        return opened[-1]

    yield open_terminal
    for terminal in opened:
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.close()


def test_watching_shows_a_bar_and_the_end(
    tmp_path: Path, make_runs: MakeRuns, terminal: Callable[..., Terminal]
) -> None:
    runs = make_runs(tmp_path)
    run = runs.create("count", {"steps": 120, "pause": 0.01})
    runs.start(run.id)
    watcher = terminal("runs", "watch", run.id)
    shown = watcher.read_until(r"count[^\n]*━[^\n]*\d+/120")
    assert run.id in shown
    assert watcher.close() == 0
    assert "The run is done." in watcher.seen


def test_ctrl_c_leaves_the_run_running(tmp_path: Path, make_runs: MakeRuns, terminal: Callable[..., Terminal]) -> None:
    runs = make_runs(tmp_path)
    run = runs.create("wait", {})
    runs.start(run.id)
    watcher = terminal("runs", "watch", run.id)
    watcher.read_until(r"wait .*\d+/")
    watcher.press_ctrl_c()
    watcher.read_until(r"The run goes on")
    assert watcher.close() == 0
    assert f"pagoda runs watch {run.id}" in " ".join(watcher.seen.split())
    assert "Traceback" not in watcher.seen
    assert runs.get(run.id).status == "running"
    runs.cancel(run.id, at_once=True)


def test_ctrl_c_twice_cancels_the_run(tmp_path: Path, make_runs: MakeRuns, terminal: Callable[..., Terminal]) -> None:
    runs = make_runs(tmp_path)
    run = runs.create("wait", {})
    runs.start(run.id)
    watcher = terminal("runs", "watch", run.id)
    watcher.read_until(r"wait .*\d+/")
    watcher.press_ctrl_c()
    watcher.read_until(r"The run goes on")
    watcher.press_ctrl_c()
    assert watcher.close() == 1
    assert "The run is cancelled" in watcher.seen
    assert runs.get(run.id).status == "cancelled"


def test_resuming_goes_on_where_it_stopped(
    tmp_path: Path, make_runs: MakeRuns, terminal: Callable[..., Terminal]
) -> None:
    runs = make_runs(tmp_path)
    run = runs.create("count", {"steps": 5, "die_at": 3})
    runs.start(run.id)
    assert list(runs.watch(run.id))[-1].data["status"] == "interrupted"
    resumed = terminal("runs", "resume", run.id[-4:])
    assert resumed.close() == 0
    assert "running (attempt 2)" in resumed.seen
    assert "created" not in resumed.seen
    listing = terminal("runs", "list")
    assert listing.close() == 0
    assert re.search(rf"{run.id} .*count .*done.*5/5", listing.seen)
