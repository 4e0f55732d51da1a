"""Runs without child processes: creating, finding, executing here, and what readers conclude from the files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pagoda.core.errors import Conflict, InvalidRequest, NotFound, StoreError, UserError
from pagoda.core.runs import Run, RunContext, RunRegistry, Runs, compare, execute, record, watch, watch_async
from pagoda.core.runs.directory import RunDirectory
from pagoda.core.runs.process import Process, host, is_alive, process_of, this_process
from pagoda.core.runs.watching import Follower
from pagoda.core.settings import Settings


def work(context: RunContext) -> dict[str, Any]:
    for step in range(3):
        context.progress("work", step, 3)
        context.metric(step, loss=context.config.get("loss", 1.0) / (step + 1))
    context.progress("work", 3, 3)
    context.event("saved", file="文.bin")
    (context.artifacts / "result").write_text("made")
    return {"seed": context.seed}


def unlucky(context: RunContext) -> None:
    raise UserError("The data is empty: give another file.")


def leave(context: RunContext) -> None:
    sys.exit(3)


def not_json(context: RunContext) -> Any:
    return {"value": object()}


def rude(context: RunContext) -> None:
    context.event("status", status="done")


def stop_yourself(context: RunContext) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        context.progress("wait", 0)


def delete_yourself(context: RunContext) -> None:
    shutil.rmtree(context.directory)
    context.metric(1, loss=1)


KINDS: dict[str, Any] = {
    "work": work,
    "unlucky": unlucky,
    "leave": leave,
    "not-json": not_json,
    "rude": rude,
    "stop-yourself": stop_yourself,
    "delete-yourself": delete_yourself,
    "nowhere": "pagoda.core.runs:no_such_function",
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def runs(settings: Settings) -> Runs:
    return Runs(settings, RunRegistry(KINDS))


@pytest.fixture
def perform(settings: Settings, runs: Runs) -> Callable[..., Run]:
    def perform(kind: str, **config: Any) -> Run:
        return execute(runs.create(kind, config, seed=7).id, runs.registry, settings)

    return perform


def test_a_new_run_is_complete_on_the_disk(runs: Runs) -> None:
    run = runs.create("work", {"path": Path("a/b"), "rates": (1, 0.5)}, name="第一", parent="p")
    assert record.ID.fullmatch(run.id)
    found = runs.get(run.id)
    assert (found.kind, found.name, found.status, found.parent) == ("work", "第一", "created", "p")
    assert found.config == {"path": "a/b", "rates": [1, 0.5]}
    assert found.seed == run.seed
    assert found.versions["python"].startswith("3.")
    assert sorted(entry.name for entry in run.directory.iterdir()) == [
        "artifacts", "checkpoints", "events.jsonl", "log.txt", "metrics.jsonl", "run.json",
    ]  # fmt: skip


def test_an_unknown_kind_is_refused_with_those_there_are(runs: Runs) -> None:
    with pytest.raises(NotFound, match="there are: delete-yourself, leave"):
        runs.create("sft", {})
    assert runs.find() == []


def test_a_kind_needs_a_proper_name() -> None:
    with pytest.raises(ValueError, match="cannot name a kind"):
        RunRegistry({"../evil": work})


@hypothesis_settings(deadline=None)
@given(
    st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(9000, 1, 1)),
    st.from_regex(record.KIND, fullmatch=True),
)
def test_ids_are_readable_and_sort_by_time(moment: datetime, kind: str) -> None:
    first = record.new_id(kind, moment.replace(tzinfo=UTC))
    later = record.new_id("a", moment.replace(tzinfo=UTC) + timedelta(seconds=1))
    assert record.ID.fullmatch(first)
    assert first < later
    assert record.broken_run(Path("/x") / first, "").kind == kind


def test_two_runs_never_share_a_directory(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["aaaa", "aaaa", "bbbb"])
    moment = datetime(2026, 11, 21, tzinfo=UTC)
    monkeypatch.setattr("pagoda.core.runs.record.secrets.token_hex", lambda size: next(drawn))
    monkeypatch.setattr("pagoda.core.runs.ledger.now", lambda: moment)
    first, second = runs.create("work", {"a": 1}), runs.create("work", {"a": 2})
    assert first.id != second.id
    assert [run.config for run in runs.find()] == [{"a": 2}, {"a": 1}]
    assert not list(runs.directory.glob(".*"))


@pytest.mark.parametrize("text", ["../runs", "", "20261121-000000-work-zzzz", "/etc"])
def test_other_texts_are_no_runs(runs: Runs, text: str) -> None:
    with pytest.raises(NotFound):
        runs.get(text)
    with pytest.raises(NotFound):
        runs.resolve(text)


def test_a_run_is_found_by_a_part_of_its_id(runs: Runs) -> None:
    run = runs.create("work", {})
    assert runs.resolve(run.id[-4:]) == runs.resolve(run.id[:-1]) == run.id
    other = runs.create("work", {})
    with pytest.raises(NotFound, match="may mean 2 runs"):
        runs.resolve("20")
    assert runs.resolve(other.id) == other.id


def test_finding_filters_and_limits(runs: Runs, perform: Callable[..., Run]) -> None:
    done, failed, created = perform("work"), perform("unlucky"), runs.create("work", {})
    assert {run.id for run in runs.find()} == {done.id, failed.id, created.id}
    assert [run.id for run in runs.find(status="done")] == [done.id]
    assert {run.id for run in runs.find(kind="work")} == {done.id, created.id}
    assert len(runs.find(limit=2)) == 2


def test_work_that_is_done(runs: Runs, perform: Callable[..., Run]) -> None:
    run = perform("work")
    assert run.status == "done"
    found = runs.get(run.id)
    assert (found.status, found.attempt, found.result, found.error) == ("done", 1, {"seed": 7}, None)
    assert found.progress is not None
    assert (found.progress.done, found.progress.total) == (3, 3)
    assert found.started is not None
    assert found.finished is not None
    assert (run.directory / "artifacts" / "result").read_text() == "made"
    assert not (run.directory / ".reserve").exists()


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("unlucky", "The data is empty: give another file."),
        ("leave", "SystemExit: 3"),
        ("not-json", "result.value = <object"),
        ("rude", "the run mechanism uses that name"),
        ("nowhere", "cannot be imported"),
    ],
)
def test_work_that_fails_says_why(runs: Runs, perform: Callable[..., Run], kind: str, error: str) -> None:
    run = runs.get(perform(kind).id)
    assert run.status == "failed"
    assert run.error is not None
    assert error in run.error
    assert "Traceback (most recent call last)" in (run.directory / "log.txt").read_text()


def test_a_done_run_is_not_done_again(runs: Runs, settings: Settings, perform: Callable[..., Run]) -> None:
    run = perform("work")
    for act in (runs.start, runs.resume, runs.cancel):
        with pytest.raises(Conflict, match="done already"):
            act(run.id)
    with pytest.raises(Conflict, match="done already"):
        execute(run.id, runs.registry, settings)


def test_a_run_that_was_never_started_can_be_cancelled(runs: Runs) -> None:
    run = runs.create("work", {})
    assert runs.cancel(run.id).status == "cancelled"
    assert runs.get(run.id).status == "cancelled"
    with pytest.raises(Conflict, match="pagoda runs resume"):
        runs.start(run.id)


def test_a_shutdown_interrupts_and_a_later_attempt_is_counted(
    runs: Runs, settings: Settings, perform: Callable[..., Run]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run = perform("stop-yourself")
    assert run.status == runs.get(run.id).status == "interrupted"
    assert signal.getsignal(signal.SIGTERM) is before
    again = execute(run.id, runs.registry, settings)
    assert (again.status, again.attempt) == ("interrupted", 2)
    assert again.seconds >= run.seconds
    assert runs.cancel(run.id).status == "cancelled"


def test_a_deleted_directory_ends_the_work_and_stays_deleted(runs: Runs, perform: Callable[..., Run]) -> None:
    with pytest.raises(StoreError, match="is gone") as caught:
        perform("delete-yourself")
    assert caught.value.code == "run_gone"
    assert runs.find() == []
    assert not any(runs.directory.iterdir())


def test_a_run_cannot_be_executed_twice_at_once(
    runs: Runs, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pagoda.core.runs.execution._LOCK_SECONDS", 0.05)
    monkeypatch.setattr("pagoda.core.runs.ledger._START_SECONDS", 0.05)
    run = runs.create("work", {})
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with RunDirectory(run.directory).locked(1):
            held.set()
            release.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    try:
        with pytest.raises(Conflict, match="being executed already"):
            execute(run.id, runs.registry, settings)
        with pytest.raises(Conflict, match="being executed already"):
            runs.start(run.id)
    finally:
        release.set()
        thread.join()


# What readers conclude


def dead_process() -> Process:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = process_of(child.pid)
    assert found is not None
    assert is_alive(found)
    child.kill()
    while is_alive(found):  # it stays in the process table, as a zombie, until somebody asks
        pass
    child.communicate()
    assert is_alive(found) is False
    return found


def claim(run: Run, process: Process | None, status: Any = "running") -> RunDirectory:
    directory = RunDirectory(run.directory)
    directory.write(replace(run, status=status, attempt=1))
    if process is not None:
        directory.write_process(process, record.now())
    return directory


def test_a_run_whose_process_lives_is_running(runs: Runs) -> None:
    run = runs.create("work", {})
    directory = claim(run, this_process())
    assert runs.get(run.id).status == "running"
    # No clock takes part: neither an old sign of life nor one from the future changes that.
    for moment in (0, 2**33):
        os.utime(directory.heartbeat, (moment, moment))
        assert runs.get(run.id).status == "running"


def test_a_run_whose_process_is_gone_was_interrupted(runs: Runs) -> None:
    run = runs.create("work", {})
    directory = claim(run, dead_process())
    assert runs.get(run.id).status == "interrupted"
    future = record.now().timestamp() + 10**6
    os.utime(directory.heartbeat, (future, future))
    assert runs.get(run.id).status == "interrupted"


def test_a_process_that_got_the_same_id_is_another_one(runs: Runs) -> None:
    run = runs.create("work", {})
    claim(run, replace(this_process(), started="1"))
    assert runs.get(run.id).status == "interrupted"


def test_a_process_that_died_while_starting_is_noticed(runs: Runs) -> None:
    run = runs.create("work", {})
    claim(run, dead_process(), status="created")
    assert runs.get(run.id).status == "interrupted"


def test_a_killed_run_that_was_to_stop_is_cancelled(runs: Runs) -> None:
    run = runs.create("work", {})
    directory = claim(run, dead_process())
    directory.cancel.write_text("{}")
    assert runs.get(run.id).status == "cancelled"


@pytest.mark.parametrize("process", [Process(1, "1", "another machine"), None])
def test_a_process_elsewhere_is_judged_by_the_lock(runs: Runs, process: Process | None) -> None:
    run = runs.create("work", {})
    directory = claim(run, process)
    assert runs.get(run.id).status == "interrupted"
    script = (
        "import sys; from pathlib import Path; from pagoda.core.runs.directory import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).locked(1): print('held', flush=True); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(directory.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    assert runs.get(run.id).status == "running"
    child.kill()
    child.communicate()
    assert runs.get(run.id).status == "interrupted"


def test_a_last_word_written_while_we_look_counts(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.create("work", {})
    directory = claim(run, this_process())

    def ends_now(process: Process) -> bool:
        directory.write(replace(run, status="done", attempt=1))
        return False

    monkeypatch.setattr("pagoda.core.runs.directory.is_alive", ends_now)
    assert runs.get(run.id).status == "done"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not valid JSON"),
        (b"\x00" * 100, "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'{"format": 99}', "newer Pagoda"),
        (b'{"format": 1, "status": "thinking"}', "unknown status"),
        (b'{"format": 1, "status": "done", "id": "other"}', "belongs to the run other"),
        (None, "missing"),
    ],
)
def test_a_broken_run_is_listed_and_hides_no_other(runs: Runs, content: bytes | None, reason: str) -> None:
    run, other = runs.create("work", {}), runs.create("unlucky", {})
    if content is None:
        (run.directory / "run.json").unlink()
    else:
        (run.directory / "run.json").write_bytes(content)
    found = {entry.id: entry for entry in runs.find()}
    assert found[other.id].status == "created"
    assert (found[run.id].status, found[run.id].kind) == ("broken", "work")
    assert reason in (found[run.id].error or "")
    with pytest.raises(Conflict, match="broken"):
        runs.start(run.id)
    assert [event.type for event in runs.watch(run.id)][-1] == "end"


@pytest.mark.parametrize("name", ["status.json", "heartbeat.json"])
def test_a_broken_side_file_harms_nothing(runs: Runs, perform: Callable[..., Run], name: str) -> None:
    run = perform("work")
    (run.directory / name).write_bytes(b"\xff{")
    assert runs.get(run.id).status == "done"


def test_strange_entries_among_the_runs_are_no_runs(runs: Runs) -> None:
    run = runs.create("work", {})
    (runs.directory / "notes.txt").write_text("")
    (runs.directory / ".new-20261121-000000-work-0000").mkdir()
    assert [found.id for found in runs.find()] == [run.id]


def test_a_clock_that_jumps_back_only_looks_odd(
    runs: Runs, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.create("work", {})
    past = record.now() - timedelta(days=400)
    for module in ("execution", "context"):
        monkeypatch.setattr(f"pagoda.core.runs.{module}.now", lambda: past)
    execute(run.id, runs.registry, settings)
    found = runs.get(run.id)
    assert found.status == "done"
    assert found.finished is not None
    assert found.finished < found.created
    assert 0 <= found.seconds < 60
    assert [event.type for event in runs.watch(run.id)][-1] == "end"


# Watching and comparing


def test_watching_an_ended_run_tells_everything(runs: Runs, perform: Callable[..., Run]) -> None:
    run = perform("work")
    events = list(runs.watch(run.id))
    assert [event.type for event in events] == [
        "status", "status", "metric", "metric", "metric", "saved", "status", "progress", "end",
    ]  # fmt: skip
    assert events[5].data == {"file": "文.bin"}
    assert events[-1].data == {"status": "done", "error": None, "result": {"seed": 7}}
    later = list(runs.watch(run.id, after=events[-1].id))
    assert [event.type for event in later] == ["progress", "end"]


async def test_watching_in_an_event_loop_is_the_same(runs: Runs, perform: Callable[..., Run]) -> None:
    run = perform("work")
    directory = RunDirectory(run.directory)
    assert [event async for event in watch_async(directory)] == list(watch(directory))


@pytest.mark.parametrize("after", ["x", "1-", "-", "1-٣", "1--2"])
def test_a_wrong_place_is_refused(runs: Runs, after: str) -> None:
    run = runs.create("work", {})
    with pytest.raises(InvalidRequest, match=r"is not the id of an event"):
        next(runs.watch(run.id, after=after))


def test_a_run_that_nobody_started_does_not_end(runs: Runs) -> None:
    run = runs.create("work", {})
    follower = Follower(RunDirectory(run.directory))
    assert [event.data for event in follower.poll()] == [{"status": "created"}]
    assert not follower.ended
    assert follower.poll() == []
    shutil.rmtree(run.directory)
    with pytest.raises(NotFound):
        follower.poll()


def test_comparing_shows_what_differs(runs: Runs, settings: Settings, perform: Callable[..., Run]) -> None:
    a, b = perform("work", loss=3.0, size={"deep": 1}), perform("work", loss=6.0, size={"deep": 1}, extra=None)
    found = compare(a, b)
    assert found.differences == {"config.loss": {"a": 3.0, "b": 6.0}, "config.extra": {"b": None}}
    loss = found.metrics["loss"]
    assert (loss["a"].last, loss["a"].low, loss["a"].high) == (1.0, 1.0, 3.0)
    assert (loss["b"].last, loss["b"].low, loss["b"].high) == (2.0, 2.0, 6.0)
    assert found.to_json()["metrics"]["loss"]["b"] == {"last": 2.0, "low": 2.0, "high": 6.0}
    same = runs.compare(a.id, a.id)
    assert same.differences == {}


def test_identity_of_this_process() -> None:
    process = this_process()
    assert process.pid == os.getpid()
    assert process.host == host()
    assert is_alive(process) is True
    assert is_alive(replace(process, host="elsewhere")) is None


def test_runs_need_no_database_and_no_terminal() -> None:
    heavy = "{'sqlalchemy', 'alembic', 'aiosqlite', 'asyncpg', 'rich', 'torch', 'numpy', 'fastapi', 'pydantic'}"
    code = f"import sys, pagoda.core.runs; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
