"""``pagoda experiments`` and ``pagoda reviews`` as a person types them, on the records of a home."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pagoda.application.judging import Panel, _judge
from pagoda.application.keeping import with_records
from pagoda.cli.main import main
from pagoda.core.configuration import load_settings
from pagoda.core.settings import Settings
from pagoda.core.types import Message
from pagoda.logic.reviews.book import Item, ReviewBook, Ruling
from tests.doors import ScriptedDoor

MODEL = "smollm2-135m-instruct"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAGODA_HOME", str(tmp_path))
    return load_settings({}, {"PAGODA_HOME": str(tmp_path), "HOME": str(tmp_path)}, tmp_path)


def create(*words: str) -> int:
    variants = ("--variant", f"a={MODEL}:0.8", "--variant", f"b={MODEL}:0.2")
    return main(["experiments", "create", "one", "--model", MODEL, *variants, "--metric", "thumb", *words])


def test_an_experiment_is_made_run_ramped_shown_and_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    assert create("--guard", "latency:0.5:30", "--exposure", "0.2", "--start", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert [each["share"] for each in made["variants"]] == [0.8, 0.2]
    assert made["guardrails"] == [{"name": "latency", "margin": 0.5, "most": 30.0}]
    assert main(["experiments", "ramp", "one", "0.6", "--shares", "a=0.5,b=0.5", "--json"]) == 0
    assert [each["shares"] for each in json.loads(capsys.readouterr().out)["slices"]] == [[0.8, 0.2], [0.5, 0.5]]
    assert main(["experiments", "show", "one"]) == 0
    shown = capsys.readouterr().out
    assert "open to 60%" in shown
    assert "latency (must not grow by more than 0.5)" in shown
    assert "Not decided after 0 outcomes of thumb" in shown
    assert main(["experiments", "stop", "one"]) == 0
    assert main(["experiments", "list", "--json"]) == 0
    assert "stopped" in capsys.readouterr().out
    assert main(["experiments", "stop", "one"]) == 1
    assert "does not run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "x", "--model", MODEL, "--variant", f"a={MODEL}", "--metric", "thumb"], "2 to 10 variants"),
        (["create", "x", "--prompt", "p", "--variant", "a=b", "--variant", "b=2", "--metric", "thumb"], "is a number"),
        (["create", "x", "--model", MODEL, "--variant", "a", "--metric", "thumb"], "write it as name=model"),
        (["create", "x", "--model", MODEL, "--metric", "thumb", "--guard", "cost"], "write it as name:margin"),
        (["ramp", "x", "0.5", "--shares", "a=much"], "is no number"),
        (["plan", "--baseline", "2", "--effect", "0.1"], "between 0 and 1"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiments", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_plan_needs_no_records(home: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiments", "plan", "--baseline", "0.5", "--effect", "0.1"]) == 0
    assert "One look at the end: 770 outcomes." in capsys.readouterr().out
    assert not (home.home / "pagoda.db").exists()


def enter(settings: Settings, request_id: str, question: str = "Capital of France?") -> str:
    prompt: dict[str, list[Message]] = {"messages": [{"role": "user", "content": question}]}
    item = Item(
        team="local", request_id=request_id, reason="sample", detail={}, model="m", prompt=prompt, answer="Lyon."
    )
    return asyncio.run(with_records(settings, lambda opened: ReviewBook(opened).enter(item))).record.id


def test_a_review_is_claimed_edited_and_exported(home: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    review = enter(home, "req-1")
    assert main(["reviews", "claim", "--reviewer", "ann"]) == 0
    shown = capsys.readouterr().out
    assert review in shown
    assert "user: Capital of France?" in shown
    assert "answer: Lyon." in shown
    assert main(["reviews", "decide", review, "edit", "--reviewer", "ann"]) == 2
    assert main(["reviews", "decide", review, "edit", "--edited", "巴黎。", "--reviewer", "ann"]) == 0
    assert f"{review} is edited." in capsys.readouterr().out
    assert main(["reviews", "export", "--form", "preference"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("巴黎。", "Lyon.")
    assert main(["reviews", "list", "--state", "waiting"]) == 0
    assert capsys.readouterr().out == "There is nothing to review.\n"
    assert main(["reviews", "show", "rev-nothing"]) == 1


def test_a_judge_is_asked_once_about_what_people_decided(home: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"Good?": "Verdict: PASS", "Bad?": "Verdict: FAIL", "Odd?": "Perhaps."}
    decided = {
        "Good?": Ruling(decision="approve"),
        "Bad?": Ruling(decision="reject", reason="wrong"),
        "Odd?": Ruling(decision="approve"),
    }
    ids = {question: enter(home, question, question) for question in said}
    door = ScriptedDoor(lambda text, index: next(words for question, words in said.items() if question in text))

    async def work(opened: Any) -> list[int]:
        book = ReviewBook(opened)
        for question, ruling in decided.items():
            await book.decide("local", ids[question], "ann", ruling)
        panel = Panel("local", "m", "It is right.", 10)
        return [(await _judge(book, door, panel))[0] for _ in range(2)]  # type: ignore[arg-type]

    assert asyncio.run(with_records(home, work)) == [3, 0]
    assert main(["reviews", "agreement"]) == 0
    assert (
        "judge:m beside people: 2 together, agrees on 1.000, kappa 1.000, could not judge 1" in capsys.readouterr().out
    )
