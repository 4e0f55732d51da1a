"""Runs in real processes: killed, cancelled, out of space, robbed of their directory; and resumed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagoda.core.errors import Conflict, NotFound
from pagoda.core.runs import Run, RunEvent, RunRegistry, Runs
from pagoda.core.runs.metrics import read_metrics
from pagoda.core.settings import Settings

MakeRuns = Callable[..., Runs]


def until(events: Iterator[RunEvent], kind: str) -> RunEvent:
    return next(event for event in events if event.type == kind)


def end_of(runs: Runs, run: Run) -> Run:
    """The run after its end."""
    until(runs.watch(run.id), "end")
    return runs.get(run.id)


def begun(runs: Runs, kind: str, **config: object) -> Run:
    """A run whose work has begun."""
    run = runs.create(kind, config)
    runs.start(run.id)
    until(runs.watch(run.id), "progress")
    return runs.get(run.id)


def series(run: Run) -> list[tuple[int, float]]:
    return [(point.step, point.values["value"]) for point in read_metrics(run.directory / "metrics.jsonl")]


def test_a_killed_run_resumes_to_the_result_of_an_undisturbed_one(tmp_path: Path, make_runs: MakeRuns) -> None:
    runs = make_runs(tmp_path)
    calm = runs.create("count", {"steps": 30}, seed=11)
    runs.start(calm.id)
    killed = runs.create("count", {"steps": 30, "die_at": 13}, seed=11)
    runs.start(killed.id)
    interrupted = end_of(runs, killed)
    assert (interrupted.status, interrupted.attempt) == ("interrupted", 1)
    runs.resume(killed.id)
    after, expected = end_of(runs, killed), end_of(runs, calm)
    assert (after.status, after.attempt) == (expected.status, 2) == ("done", 2)
    assert after.result == expected.result
    assert series(after) == series(expected)
    assert [step for step, _ in series(after)] == list(range(1, 31))
    assert (after.directory / "artifacts/value.txt").read_text() == (
        expected.directory / "artifacts/value.txt"
    ).read_text()


def test_a_run_killed_from_outside_resumes(tmp_path: Path, make_runs: MakeRuns) -> None:
    runs = make_runs(tmp_path)
    run = begun(runs, "count", steps=200, pause=0.01)
    assert run.status == "running"
    assert run.process is not None
    os.kill(run.process.pid, signal.SIGKILL)
    interrupted = end_of(runs, run)
    assert interrupted.status == "interrupted"
    assert 0 < len(series(interrupted)) < 200
    runs.resume(run.id)
    assert runs.get(run.id).status in ("created", "running")  # a watcher must not see the last end again
    done = end_of(runs, run)
    assert (done.status, [step for step, _ in series(done)]) == ("done", list(range(1, 201)))


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", range(1, 8))
def test_a_kill_around_an_atomic_write_leaves_a_readable_run(
    tmp_path: Path, make_runs: MakeRuns, number: int, moment: str
) -> None:
    # Replacements of this run: heartbeat, run.json (running), status, state, state, status, run.json (done).
    runs = make_runs(tmp_path, "--die", str(number), moment)
    run = runs.create("count", {"steps": 2}, seed=3)
    runs.start(run.id)
    killed = end_of(runs, run)
    assert killed.status in ("interrupted", "done")
    if killed.status == "done":
        assert (number, moment) >= (6, "after")
    else:
        make_runs(tmp_path).resume(run.id)
    done = end_of(runs, run)
    assert (done.status, [step for step, _ in series(done)]) == ("done", [1, 2])
    assert not list(run.directory.glob(".*.tmp"))


def test_a_run_outlives_the_process_that_started_it(tmp_path: Path, make_runs: MakeRuns) -> None:
    runs = make_runs(tmp_path)
    run = runs.create("count", {"steps": 60, "pause": 0.01}, seed=1)
    script = (
        "import sys; from pathlib import Path\n"
        "from pagoda.core.runs import *; from pagoda.core.settings import Settings\n"
        "runs = Runs(Settings(home=Path(sys.argv[1])), RunRegistry({}), command=(sys.executable, sys.argv[2]))\n"
        "runs.start(sys.argv[3])\n"
        "next(event for event in runs.watch(sys.argv[3]) if event.type == 'progress')\n"
        "import os, signal; os.killpg(0, signal.SIGKILL)"
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent / "run_child.py"), run.id]
    starter = subprocess.run(command, start_new_session=True, check=False)
    assert starter.returncode == -signal.SIGKILL
    assert end_of(runs, run).status == "done"


def test_cancelling_stops_at_the_next_step_and_can_be_resumed(tmp_path: Path, make_runs: MakeRuns) -> None:
    runs = make_runs(tmp_path)
    run = begun(runs, "count", steps=150, pause=0.01)
    runs.cancel(run.id)
    cancelled = end_of(runs, run)
    assert (cancelled.status, cancelled.error) == ("cancelled", None)
    with pytest.raises(Conflict, match="cancelled already"):
        runs.cancel(run.id)
    with pytest.raises(Conflict, match="runs resume"):
        runs.start(run.id)
    runs.resume(run.id)
    assert end_of(runs, run).status == "done"


def test_a_shutdown_interrupts_without_cancelling(tmp_path: Path, make_runs: MakeRuns) -> None:
    runs = make_runs(tmp_path)
    run = begun(runs, "wait")
    assert run.process is not None
    os.kill(run.process.pid, signal.SIGTERM)
    assert end_of(runs, run).status == "interrupted"
    assert "waiting" in (run.directory / "log.txt").read_text()


def test_work_that_does_not_stop_is_killed_after_a_grace(tmp_path: Path, make_runs: MakeRuns) -> None:
    runs = make_runs(tmp_path, "--grace", "0.2")
    run = begun(runs, "stubborn")
    runs.cancel(run.id)
    assert end_of(runs, run).status == "cancelled"
    assert "did not stop within 0.2 s" in (run.directory / "log.txt").read_text()


def test_a_run_can_be_ended_at_once(tmp_path: Path, make_runs: MakeRuns) -> None:
    runs = make_runs(tmp_path)
    run = begun(runs, "stubborn")
    runs.cancel(run.id, at_once=True)
    assert end_of(runs, run).status == "cancelled"


def test_a_running_run_is_not_started_again(tmp_path: Path, make_runs: MakeRuns) -> None:
    runs = make_runs(tmp_path)
    run = runs.create("wait", {})
    runs.start(run.id)
    for act in (runs.start, runs.resume):  # both before and after the child has taken the lock
        with pytest.raises(Conflict, match="already"):
            act(run.id)
    until(runs.watch(run.id), "progress")
    for act in (runs.start, runs.resume):
        with pytest.raises(Conflict, match="already"):
            act(run.id)
    runs.cancel(run.id, at_once=True)
    assert end_of(runs, run).attempt == 1


def test_a_child_that_cannot_even_begin_is_noticed(tmp_path: Path, make_runs: MakeRuns) -> None:
    runs = make_runs(tmp_path, "--no-such-option")
    run = runs.create("count", {"steps": 1})
    runs.start(run.id)
    assert end_of(runs, run).status == "interrupted"
    assert "--no-such-option" in (run.directory / "log.txt").read_text()
    make_runs(tmp_path).resume(run.id)
    assert end_of(runs, run).status == "done"


def test_a_failure_is_told_and_can_be_tried_again(tmp_path: Path, make_runs: MakeRuns) -> None:
    runs = make_runs(tmp_path)
    run = runs.create("fail", {"once": True})
    runs.start(run.id)
    failed = end_of(runs, run)
    assert (failed.status, failed.error) == ("failed", "ValueError: the data has a hole")
    assert "and more about it" in (run.directory / "log.txt").read_text()
    runs.resume(run.id)
    assert end_of(runs, run).status == "done"


def test_a_kind_whose_code_is_missing_fails_with_a_sentence(tmp_path: Path, make_runs: MakeRuns) -> None:
    runs = make_runs(tmp_path)
    run = runs.create("missing", {})
    runs.start(run.id)
    assert "cannot be imported" in (end_of(runs, run).error or "")


def test_without_further_words_pagoda_itself_executes_a_run(tmp_path: Path, make_runs: MakeRuns) -> None:
    made = make_runs(tmp_path)
    runs = Runs(Settings(home=tmp_path), RunRegistry({"unheard-of": "nowhere:nothing"}))
    run = runs.create("unheard-of", {})
    runs.resume(run.id)
    assert "There is no kind of run named 'unheard-of'" in (end_of(made, run).error or "")


def test_work_may_be_a_coroutine(tmp_path: Path, make_runs: MakeRuns) -> None:
    runs = make_runs(tmp_path)
    run = runs.create("asynchronous", {})
    runs.start(run.id)
    assert end_of(runs, run).result == {"answer": 42}


def test_a_directory_deleted_under_a_run_ends_it(tmp_path: Path, make_runs: MakeRuns) -> None:
    runs = make_runs(tmp_path)
    run = begun(runs, "wait")
    assert run.process is not None
    descriptor = os.pidfd_open(run.process.pid)
    while run.directory.exists():  # the child may write one more file while we delete
        shutil.rmtree(run.directory, ignore_errors=True)
    try:
        import select

        assert select.select([descriptor], [], [], 60)[0], "the process goes on without its directory"
    finally:
        os.close(descriptor)
    assert not run.directory.exists()
    with pytest.raises(NotFound):
        runs.get(run.id)
    assert runs.find() == []


def test_a_full_disk_fails_the_run_with_a_sentence(small_disk: Path, make_runs: MakeRuns) -> None:
    runs = make_runs(small_disk)
    run = runs.create("fill", {})
    runs.start(run.id)
    failed = end_of(runs, run)
    assert failed.status == "failed"
    assert "disk is full" in (failed.error or "")
    lines = (run.directory / "events.jsonl").read_bytes()
    assert lines.endswith(b"\n")
    # With nothing given back, the next attempt ends the same way; nothing is broken by it.
    with (run.directory / "artifacts" / "ballast").open("wb") as ballast:
        ballast.write(b"\0" * 1024)
    runs.resume(run.id)
    again = end_of(runs, run)
    assert again.status in ("failed", "interrupted")
    assert runs.find()[0].kind == "fill"


async def test_a_full_disk_loses_only_the_record_that_did_not_fit(small_disk: Path) -> None:
    from datetime import UTC, datetime

    from sqlalchemy import func, select
    from sqlalchemy.ext.asyncio import AsyncSession

    from pagoda.core.errors import StoreError
    from pagoda.core.storage.records import RunRecord
    from pagoda.core.storage.store import open_store

    written = 0
    async with open_store(Settings(home=small_disk)) as store:

        async def change(session: AsyncSession) -> None:
            config = {"text": "x" * 20_000}
            values = {"kind": "demo", "name": "", "status": "done", "has_directory": False, "seed": 0, "attempt": 1}
            session.add(RunRecord(id=str(written), created=datetime.now(UTC), config=config, **values))

        async def fill() -> None:
            nonlocal written
            while True:
                await store.write(change)
                written += 1

        with pytest.raises(StoreError) as caught:
            await fill()
        assert caught.value.code in ("store_full", "store_disk")
        assert written > 0
        async with store.read() as session:
            assert (await session.execute(select(func.count()).select_from(RunRecord))).scalar() == written
