"""``pagoda rag eval``: a collection examined by a run, which goes on where it was; told as a table and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pagoda.core.runs.files import read_all_lines
from pagoda.model.catalog.entry_file import write_entry
from tests.services import fake_model

TEXTS = {
    "keys.txt": "Who loses a key tells the porter within a day.",
    "library.txt": "图书馆周一至周五九点开门，周末休息。",
    "moon.txt": "The moon is grey and far away.",
}
QUESTIONS = (
    {"id": "key", "question": "Who is told of a lost key?", "document": "keys.txt", "answers": ["the porter"]},
    {"id": "open", "question": "图书馆几点开门？", "text": "九点开门", "answers": "九点"},
    {"id": "moon", "question": "How far is the moon?", "places": [{"document": "moon.txt", "start": 12, "end": 29}]},
    {"id": "sun", "question": "What colour is the sun?", "answerable": False},
)
RULES = [
    {"contains": "lost key", "text": "The porter [1][2][3]."},
    {"contains": "几点", "text": "九点开门。"},
    {"contains": "the sun", "text": "The documents do not say."},
]


def pagoda(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PAGODA_HOME": str(home), "PAGODA_MODELS_DIRECTORY": str(home / "models"), "HOME": str(home)}
    environment |= {"PAGODA_DEFAULTS_CHAT": "said", "PATH": ""}
    command = [sys.executable, "-m", "pagoda", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=90, check=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a collection of three documents, and a file of questions to them."""
    home = tmp_path_factory.mktemp("exam")
    (home / "models" / "entries").mkdir(parents=True)
    (home / "documents").mkdir()
    for entry in (fake_model("said", rules=RULES, text="It is far [9]."), fake_model("made-up", task="embedding")):
        (home / "models" / "entries" / f"{entry.id}.yaml").write_text(write_entry(entry), encoding="utf-8")
    for name, text in TEXTS.items():
        (home / "documents" / name).write_text(text, encoding="utf-8")
    lines = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in QUESTIONS)
    (home / "questions.jsonl").write_text(lines, encoding="utf-8")
    taken = pagoda(home, "rag", "ingest", str(home / "documents"), "--model", "made-up")
    assert taken.returncode == 0, taken.stderr
    return home


def examine(home: Path, *words: str) -> dict[str, Any]:
    told = pagoda(home, "rag", "eval", str(home / "questions.jsonl"), "--json", *words)
    assert told.returncode == 0, told.stderr
    found: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return found


def test_search_and_answers_are_measured(home: Path) -> None:
    told = examine(home, "--answers", "--floor", "-1")
    assert (told["questions"], told["unanswerable"], told["failed"], told["answers_failed"]) == (3, 1, 0, 0)
    assert set(told["search"]) == {"fused", "dense", "lexical"}
    assert told["search"]["lexical"]["recall_at_1"]["value"] == 1.0
    assert told["search"]["fused"]["mrr"]["of"] == 3
    shares = {name: None if share is None else (share["value"], share["of"]) for name, share in told["answers"].items()}
    assert shares == {
        "exact": (0.5, 2),
        "contains": (1.0, 2),
        "cites_nothing": (pytest.approx(1 / 3, abs=1e-6), 3),
        "spans_holding": (0.5, 4),
        "withheld_though_told": (0.0, 3),
        "answered_though_not_told": (0.0, 1),
        "abstained_where_not_told": (1.0, 1),
    }
    rows = {row["id"]: row for row in _rows(home, told["run"], "answering")}
    assert (rows["key"]["outcome"], rows["key"]["model"]) == ("answered", "said")
    assert {Path(each["source"]).name for each in rows["key"]["citations"]} == set(TEXTS)


def test_an_exam_that_broke_off_goes_on_where_it_was(home: Path, tmp_path: Path) -> None:
    entry = home / "models" / "entries" / "made-up.yaml"
    aside = tmp_path / "aside.yaml"
    entry.rename(aside)
    try:
        broken = pagoda(home, "rag", "eval", str(home / "questions.jsonl"), "--parallel", "1")
    finally:
        aside.rename(entry)
    assert broken.returncode == 1
    runs = json.loads(pagoda(home, "runs", "list", "--json").stdout)
    [failed] = [run for run in runs if run["kind"] == "retrieval-exam" and run["status"] == "failed"]
    path = home / "runs" / failed["id"] / "artifacts" / "searching.jsonl"
    ranks = {"fused": 5, "dense": 5, "lexical": 5}
    path.write_text(json.dumps({"id": "key", "ranks": ranks}) + '\n{"id": "op', encoding="utf-8")
    shown = pagoda(home, "rag", "eval", str(home / "questions.jsonl"), "--parallel", "1")
    assert shown.returncode == 0, shown.stderr
    assert f"Run {failed['id']};" in shown.stderr, "the same command goes on with it"
    assert "recall@1" in shown.stdout
    assert "3 questions, 1 more that are not answerable." in shown.stdout
    assert "0.667" in shown.stdout
    rows = _rows(home, failed["id"], "searching")
    assert [row["id"] for row in rows] == ["key", "open", "moon"], "what was asked is not asked again"


def test_wrong_use_is_told_before_a_run_begins(home: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.jsonl").write_text('{"question": "Who?", "document": "none.txt"}\n', encoding="utf-8")
    for words, status, said in (
        ((str(tmp_path / "wrong.jsonl"),), 2, "'none.txt' names no document of the collection"),
        ((str(tmp_path / "lost.jsonl"),), 2, "cannot be read"),
        ((str(home / "questions.jsonl"), "--collection", "nothing"), 1, "There is no collection 'nothing'"),
        ((str(home / "questions.jsonl"), "--limit", "0"), 2, "--limit is 1 to 100"),
    ):
        told = pagoda(home, "rag", "eval", *words)
        assert (told.returncode, said in told.stderr) == (status, True), told.stderr


def _rows(home: Path, run: str, stage: str) -> list[Any]:
    return read_all_lines(home / "runs" / run / "artifacts" / f"{stage}.jsonl")
