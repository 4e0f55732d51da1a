"""``pagoda runs``: what each command prints, returns and refuses."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pagoda.application import registry
from pagoda.cli import runs as commands
from pagoda.cli import runs_watch
from pagoda.core.errors import Conflict, NotFound
from pagoda.core.runs import RunContext, RunEvent, RunRegistry, Runs
from pagoda.core.settings import Settings


def work(context: RunContext) -> dict[str, Any]:
    context.progress("work", 1, 2)
    context.metric(1, loss=float("nan"), rate=0.25)
    context.event("note", text="[bold]一[/bold]")
    context.progress("work", 2, 2)
    return {"made": "值"}


def unlucky(context: RunContext) -> None:
    raise ValueError("no luck")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setenv("PAGODA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    kinds: dict[str, Any] = {"work": work, "unlucky": unlucky}
    monkeypatch.setattr(registry, "run_kinds", lambda: kinds)
    return Runs(Settings(home=tmp_path), RunRegistry(kinds))


def call(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="pagoda")
    commands.register(parser.add_subparsers())
    args = parser.parse_args(["runs", *arguments])
    result: int = args.run(args)
    return result


@pytest.mark.parametrize("command", ["list", "show", "watch", "resume", "cancel"])
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        call(command, "--help")
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert f"example:\n  pagoda runs {command}" in shown
    assert "--json" in shown


def test_the_help_does_not_list_exec(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call("--help")
    shown = capsys.readouterr().out
    assert "cancel" in shown
    assert "exec" not in shown


@pytest.mark.parametrize("arguments", [[], ["list", "--limit", "0"], ["list", "--status", "odd"], ["show"], ["fly"]])
def test_wrong_use_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        call(*arguments)
    assert caught.value.code == 2
    assert "error" in capsys.readouterr().err


def test_registering_imports_nothing_heavy() -> None:
    code = (
        "import sys, argparse; from pagoda.cli import runs; runs.register(argparse.ArgumentParser().add_subparsers());"
        "print(sorted({'rich', 'psutil', 'filelock', 'sqlalchemy', 'pagoda.core.runs', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_list(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list") == 0
    assert capsys.readouterr().out == "There are no runs.\n"
    done, broken = runs.create("work", {}, name="[red]mine"), runs.create("unlucky", {})
    assert call("exec", done.id) == 0
    (broken.directory / "run.json").write_text("")
    assert call("list") == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["RUN", "KIND", "STATUS", "PROGRESS", "CREATED", "TIME", "NAME"]
    found = {line.split()[0]: line for line in lines}
    assert "done" in found[done.id]
    assert "2/2 (100%)" in found[done.id]
    assert found[done.id].endswith("[red]mine")
    assert "run.json is not valid JSON" in found[broken.id]
    assert call("list", "--status", "done", "--json") == 0
    assert [entry["id"] for entry in json.loads(capsys.readouterr().out)] == [done.id]


def test_show(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs.create("unlucky", {"rate": 0.5}, seed=3)
    assert call("exec", run.id) == 1
    assert call("show", run.id[-4:]) == 0
    shown = capsys.readouterr().out
    for words in ("status     failed", "error      ValueError: no luck", '"rate": 0.5', f"pagoda runs resume {run.id}"):
        assert words in shown
    assert call("show", run.id, "--json") == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 3


def test_compare(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = runs.create("work", {"rate": 1}, seed=3), runs.create("work", {"rate": 2}, seed=3)
    for run in (a, b):
        call("exec", run.id)
    capsys.readouterr()
    assert call("show", a.id, "--compare", b.id) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1].split() == ["config.rate", "1", "2"]
    assert any(line.startswith("rate") and "0.25 (0.25 .. 0.25)" in line for line in shown)
    assert call("show", a.id, "--compare", b.id, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["differences"] == {"config.rate": {"a": 1, "b": 2}}
    assert found["metrics"]["loss"]["a"]["last"] == "NaN"


def test_watch_prints_plain_lines_in_a_pipe(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs.create("work", {})
    call("exec", run.id)
    assert call("watch", run.id) == 0
    lines = [line.split(" ", 1)[-1] for line in capsys.readouterr().out.splitlines()]
    expected = ["created", "running", "step 1  loss NaN  rate 0.25", "note text=[bold]一[/bold]", "done", "work 2/2"]
    assert lines == [*expected, "run is done."]


def test_watch_for_machines(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs.create("unlucky", {})
    call("exec", run.id)
    assert call("watch", run.id, "--json") == 1
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["type"] for event in events] == ["status", "status", "status", "end"]
    assert events[-1]["data"]["error"] == "ValueError: no luck"


def test_cancel_and_resume_of_what_cannot_be(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs.create("work", {})
    assert call("cancel", run.id) == 0
    assert capsys.readouterr().out == f"The run {run.id} is cancelled.\n"
    with pytest.raises(Conflict, match="cancelled already"):
        call("cancel", run.id)
    with pytest.raises(NotFound, match="pagoda runs list"):
        call("resume", "nothing")
    done = runs.create("work", {})
    call("exec", done.id)
    with pytest.raises(Conflict, match="done already"):
        call("resume", done.id)


class Interrupted:
    """A view in which somebody presses Ctrl-C at the first event."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shown: list[str] = []

    def __enter__(self) -> object:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, event: RunEvent) -> None:
        if not self.shown:
            self.shown.append("interrupt")
            raise KeyboardInterrupt
        self.shown.append(event.type)

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def test_one_ctrl_c_leaves_the_run_alone(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_watch, "AGAIN_SECONDS", 0.01)
    run = runs.create("work", {})
    view = Interrupted()
    assert runs_watch.follow_with(runs, run.id, view) == 0
    assert f"pagoda runs watch {run.id}" in view.said[0]
    assert runs.get(run.id).status == "created"


def test_a_second_ctrl_c_cancels_it(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pagoda.cli.runs_watch.time.sleep", press)
    run = runs.create("work", {})
    view = Interrupted()
    assert runs_watch.follow_with(runs, run.id, view) == 1
    assert view.shown[-1] == "end"
    assert runs.get(run.id).status == "cancelled"
