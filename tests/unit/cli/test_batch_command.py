"""``pagoda batch run``: which run a command means, and what it refuses."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from pagoda.application import registry
from pagoda.cli import batch
from pagoda.core.errors import Conflict, InvalidRequest
from pagoda.core.runs import Run, RunContext, RunRegistry, Runs, execute
from pagoda.core.settings import Settings


def answer(context: RunContext) -> dict[str, Any]:
    """Stand-in for the work: fails while there is a file ``broken``, answers two of three lines otherwise."""
    output = Path(context.config["output"])
    if (output.parent / "broken").exists():
        output.write_text("part\n")
        raise RuntimeError("broken")
    output.write_text("all\n")
    return {"completed": 2, "failed": int(Path(context.config["input"]).read_text() == "bad\n"), "output": str(output)}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Runs in this folder; those that are started are executed in this process at once."""
    monkeypatch.setenv("PAGODA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    kinds: dict[str, Any] = {"batch": answer}
    monkeypatch.setattr(registry, "run_kinds", lambda: kinds)
    runs = Runs(Settings(home=tmp_path / "home"), RunRegistry(kinds))

    def at_once(self: Runs, run_id: str) -> Run:
        return execute(run_id, self.registry, Settings(home=tmp_path / "home"))

    monkeypatch.setattr(Runs, "start", at_once)
    monkeypatch.setattr(Runs, "resume", at_once)
    Path("in.jsonl").write_text("one\n")
    return runs


def call(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="pagoda")
    batch.register(parser.add_subparsers())
    args = parser.parse_args(["batch", "run", *arguments])
    result: int = args.run(args)
    return result


def test_the_same_command_goes_on_with_the_same_run(desk: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken").touch()
    assert call("in.jsonl", "--out", "out.jsonl") == 1
    Path("broken").unlink()
    assert call("in.jsonl", "--out", "out.jsonl") == 0
    assert call("in.jsonl", "--out", "out.jsonl") == 0, "what is done is not done again"
    (run,) = desk.find(kind="batch")
    assert (run.status, run.attempt) == ("done", 2)
    assert "2 answered" in capsys.readouterr().err
    Path("out.jsonl").unlink()
    assert call("in.jsonl", "--out", "out.jsonl") == 0
    assert len(desk.find(kind="batch")) == 2, "without its output a batch is to be done anew"


def test_an_output_of_another_batch_is_left_alone(desk: Runs) -> None:
    Path("out.jsonl").write_text("mine\n")
    with pytest.raises(Conflict, match="exists already"):
        call("in.jsonl", "--out", "out.jsonl")
    assert Path("out.jsonl").read_text() == "mine\n"
    assert call("in.jsonl", "--out", "other.jsonl") == 0
    with pytest.raises(Conflict, match="another batch"):
        call("in.jsonl", "--out", "other.jsonl", "--model", "m")
    Path("in.jsonl").write_text("two\n")
    with pytest.raises(Conflict, match="another batch"):
        call("in.jsonl", "--out", "other.jsonl")


@pytest.mark.usefixtures("desk")
def test_wrong_use_is_told() -> None:
    with pytest.raises(InvalidRequest, match="different files"):
        call("in.jsonl", "--out", "in.jsonl")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        call("none.jsonl", "--out", "out.jsonl")
    with pytest.raises(InvalidRequest, match="concurrency"):
        call("in.jsonl", "--out", "out.jsonl", "--concurrency", "-1")


@pytest.mark.usefixtures("desk")
def test_failed_lines_are_told_and_are_exit_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.jsonl").write_text("bad\n")
    assert call("in.jsonl", "--out", "out.jsonl", "--json") == 1
    said = capsys.readouterr()
    assert "1 failed" in said.err
    assert json.loads(said.out.splitlines()[-1])["failed"] == 1
