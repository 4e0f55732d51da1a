"""The state machine of a run under kills at any file operation: the directory always tells a true story."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pagoda.core.errors import Conflict
from pagoda.core.runs import RunContext, RunRegistry, Runs, execute, files
from pagoda.core.runs.process import Process
from pagoda.core.settings import Settings

STEPS = 3


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it, so nothing more is written."""


class Kill:
    """Lets the process die before or after the ``countdown``-th change of a file."""

    def __init__(self) -> None:
        self.countdown = 0

    def reaches_zero(self) -> bool:
        self.countdown -= 1
        return self.countdown == 0


def work(context: RunContext) -> dict[str, int]:
    state = context.load_state() or 0
    while state < STEPS:
        context.progress("work", state, STEPS)
        context.metric(state, value=state)
        state += 1
        context.save_state(state)
        if context.config["fails"] and state == 2 and not context.resumed:
            raise ValueError("once")
    return {"state": state}


class RunMachine(RuleBasedStateMachine):
    """One run: executed, killed, cancelled and resumed in any order. ``expected`` is what a reader must find."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.settings = Settings(home=self.home)
        self.registry = RunRegistry({"work": work})
        self.runs = Runs(self.settings, self.registry)
        self.run_id = self.runs.create("work", {"fails": False}).id
        self.kill = Kill()
        self.possible = {"created"}
        self.alive = False
        self.real_write, self.real_append = files.write_json, files.append_line
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(files, "write_json", self._write)
        self.patch.setattr(files, "append_line", self._append)
        for module in ("directory", "ledger"):
            self.patch.setattr(f"pagoda.core.runs.{module}.is_alive", self._is_alive)

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.home)

    def _write(self, path: Path, value: Any, *, durable: bool = True) -> None:
        with self._perhaps_killed():
            self.real_write(path, value, durable=False)

    def _append(self, path: Path, value: Any) -> None:
        with self._perhaps_killed():
            self.real_append(path, value)

    @contextmanager
    def _perhaps_killed(self) -> Iterator[None]:
        if self.kill.reaches_zero():
            raise Killed
        yield
        if self.kill.reaches_zero():
            raise Killed

    def _is_alive(self, process: Process) -> bool:
        return self.alive

    def _execute(self) -> None:
        self.alive = True
        try:
            run = execute(self.run_id, self.registry, self.settings)
        finally:
            self.alive = False
        self.possible = {run.status}

    @precondition(lambda self: self.possible != {"done"})
    @rule()
    def executed(self) -> None:
        self._execute()
        assert self.possible == {"done"}

    @precondition(lambda self: self.possible != {"done"})
    @rule(moment=st.integers(1, 40))
    def executed_and_killed(self, moment: int) -> None:
        self.kill.countdown = moment
        try:
            self._execute()
        except Killed:
            # Killed before the first word, it stands as it did; after the last word, as that says.
            self.possible = self.possible | {"interrupted", "done"}
        finally:
            self.kill.countdown = 0

    @precondition(lambda self: not self.possible & {"done", "cancelled"})
    @rule()
    def cancelled(self) -> None:
        self.runs.cancel(self.run_id)
        self.possible = {"cancelled"}

    @invariant()
    def a_reader_finds_the_truth(self) -> None:
        run = self.runs.get(self.run_id)
        assert run.status in self.possible, (run.status, self.possible)
        self.possible = {run.status}
        if run.status == "done":
            assert run.result == {"state": STEPS}
            steps = [event.data["step"] for event in self.runs.watch(self.run_id) if event.type == "metric"]
            assert sorted(set(steps)) == list(range(STEPS))
        assert [entry.id for entry in self.runs.find()] == [self.run_id]

    @precondition(lambda self: self.possible == {"done"})
    @rule()
    def done_stays_done(self) -> None:
        for act in (self.runs.cancel, self.runs.resume, self.runs.start):
            try:
                act(self.run_id)
            except Conflict:
                continue
            raise AssertionError(f"{act.__name__} of a done run was allowed")


TestRunMachine = RunMachine.TestCase
TestRunMachine.settings = hypothesis_settings(deadline=None, max_examples=30, stateful_step_count=12)
