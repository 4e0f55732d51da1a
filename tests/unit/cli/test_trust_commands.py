"""``pagoda trust`` as a user types it, with a scripted door behind it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pagoda.application import retrieving, trusting
from pagoda.cli.main import main
from tests.unit.logic.trust.test_scoring import Door

QUESTION = ("--question", "When was the museum founded?", "--source", "guide.md")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGODA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    text = "# Museum\n\nThe museum was founded in 1884 by Maria Keller. A ticket costs twelve dollars.\n"
    (tmp_path / "guide.md").write_text(text, encoding="utf-8")

    @contextlib.asynccontextmanager
    async def door(settings: Any, environment: Any) -> AsyncIterator[Any]:
        yield Door()

    monkeypatch.setattr(trusting, "home_door", door)
    monkeypatch.setattr(retrieving, "home_door", door)


def run(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> SimpleNamespace:
    found = main(["trust", *words])
    shown = capsys.readouterr()
    assert found == status, shown
    return SimpleNamespace(out=shown.out, err=shown.err)


def test_claims_are_checked_with_the_places_of_their_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    told = run(
        capsys, "check", "A ticket costs 12 dollars. The museum was founded in 1894.", "--source", "guide.md", status=1
    )
    assert told.out == (
        "supported  0-26  A ticket costs 12 dollars.\n"
        "    guide.md:58-88  A ticket costs twelve dollars.\n"
        "contradicted  27-58  The museum was founded in 1894.\n"
        "    guide.md:10-57  The museum was founded in 1884 by Maria Keller.\n"
    )
    told = run(capsys, "check", "A ticket costs 12 dollars.", "--source", "guide.md", "--json")
    answer = json.loads(told.out)
    assert (answer["supported"], answer["cut"]) == (True, None)
    assert answer["claims"][0]["evidence"][0]["start"] == 58


def test_what_could_not_be_judged_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        "could not judge  0-11  Is it open?"
        in run(capsys, "check", "Is it open?", "--source", "guide.md", status=1).out
    )
    claims = "A ticket costs 12 dollars. " * 201
    told = run(capsys, "check", claims, "--source", "guide.md", status=1).out
    assert told.endswith("could not judge  from 5400 on: there are more than 200 claims\n")


def test_an_answer_is_scored_for_people_and_machines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = json.loads(run(capsys, "score", "In 1884.", *QUESTION, "--threshold", "0", "--json").out)
    assert answer["judged"]
    told = run(capsys, "score", "In 1884.", *QUESTION, "--threshold", "0").out
    assert told.startswith(f"confidence: {answer['confidence']:.2f} (plain mean ")
    assert "factuality: " in told
    monkeypatch.setattr("sys.stdin", io.StringIO("It cost 2 + 2 = 5 dollars."))
    told = run(capsys, "score", "-", "--family", "token_probability", "--below", "abstain", status=1).out
    assert "factuality: not to be had: it was not asked for" in told
    assert "logical  8-17  2 + 2 = 5\n    It comes to 4.\n" in told
    assert "withheld: I am not sure enough" in told


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("check", "It is open."), 2, "Say what the claims are held against"),
        (("check", "It is open.", "--source", "nothing.md"), 2, "nothing.md cannot be read"),
        (("check", "…", "--source", "guide.md"), 2, "no claim in the text"),
        (("check", "It is open.", "--collection", "nothing"), 1, "There is no collection"),
        (("score", "x", "--threshold", "2"), 2, "between 0 and 1"),
        (("score", "x", "--below", "ask"), 2, "names the model"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], status: int, said: str
) -> None:
    assert said in run(capsys, *words, status=status).err


def test_an_answer_from_documents_says_how_sure_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rag", "ingest", "guide.md"]) == 0
    capsys.readouterr()
    asked = ("rag", "ask", "When was the museum founded?", "--floor", "-1", "--trust")
    assert main([*asked, "--threshold", "0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["answer"] == "In 1884. [1]"
    assert told["trust"]["claims"][0]["evidence"][0]["text"].startswith("The museum was founded in 1884")
    assert main([*asked, "--threshold", "0"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("In 1884. [1]\n\n[1] ")
    assert "\nconfidence: " in shown
    assert main([*asked, "--threshold", "1", "--below", "abstain"]) == 1
    assert "withheld: I am not sure enough" in capsys.readouterr().out
    assert main([*asked, "--threshold", "1", "--below", "abstain", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["answer"] == "I am not sure enough of an answer to give one."
