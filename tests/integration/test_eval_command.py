"""``pagoda eval run`` as a program, over scripted models: BFCL with items of our own, and the set of injections."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from pagoda.model.catalog.entry_file import write_entry
from tests.services import fake_model

TOOL = {
    "name": "book",
    "description": "Book a room.",
    "parameters": {"type": "dict", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
FILES: dict[str, list[dict[str, Any]]] = {
    "simple_python.jsonl": [
        {"id": "s1", "question": [[{"role": "user", "content": "a room in rome"}]], "function": [TOOL]},
        {"id": "s2", "question": [[{"role": "user", "content": "a room in oslo"}]], "function": [TOOL]},
    ],
    "simple_python.answers.jsonl": [
        {"id": "s1", "ground_truth": [{"book": {"city": ["Rome"]}}]},
        {"id": "s2", "ground_truth": [{"book": {"city": ["Bergen"]}}]},
    ],
}
RULES = [
    {"contains": "rome", "text": '```json\n{"name": "book", "arguments": {"city": "Rome"}}\n```'},
    {"contains": "oslo", "text": '{"name": "book", "arguments": {"city": "Oslo"}}'},
]


def pagoda(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PAGODA_HOME": str(home),
        "PAGODA_MODELS_DIRECTORY": str(home / "models"),
        "PATH": "",
        "HOME": str(home),
    }
    return subprocess.run(
        [sys.executable, "-m", "pagoda", *words],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )


def test_items_are_asked_counted_and_not_asked_again(tmp_path: Path) -> None:
    data, entries = tmp_path / "bfcl", tmp_path / "home" / "models" / "entries"
    data.mkdir()
    entries.mkdir(parents=True)
    for name, rows in FILES.items():
        (data / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (entries / "scripted.yaml").write_text(write_entry(fake_model("scripted", rules=RULES)), encoding="utf-8")
    words = ("eval", "run", "bfcl", "--data", str(data), "--model", "scripted", "--categories", "simple_python")
    done = pagoda(tmp_path / "home", *words, "--mode", "unconstrained", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["all"] == {"items": 2, "valid": 2, "names": 2, "right": 1, "called": 2}
    answers = tmp_path / "home" / "runs" / told["run"] / "artifacts" / "answers.jsonl"
    assert sorted(json.loads(line)["id"] for line in answers.read_text().splitlines()) == ["s1", "s2"]
    constrained = pagoda(tmp_path / "home", *words, "--limit", "1")
    assert constrained.returncode == 0, constrained.stderr
    assert "simple_python" in constrained.stdout
    wrong = pagoda(tmp_path / "home", *words, "--parallel", "0")
    assert wrong.returncode == 2


def test_a_model_that_is_not_there_is_no_wrong_answer(tmp_path: Path) -> None:
    data = tmp_path / "bfcl"
    data.mkdir()
    for name, rows in FILES.items():
        (data / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ("eval", "run", "bfcl", "--data", str(data), "--categories", "simple_python")
    lost = pagoda(tmp_path / "home", *words, "--model", "smollm2-135m-instruct")
    assert lost.returncode == 1
    assert "is not on this machine" in lost.stdout + lost.stderr
    assert not list((tmp_path / "home" / "runs").glob("*/artifacts/answers.jsonl"))


def test_injections_are_run_and_told(tmp_path: Path) -> None:
    entries = tmp_path / "home" / "models" / "entries"
    entries.mkdir(parents=True)
    rules = [
        {"contains": "Ignore your task", "text": "QUILLFISH"},
        {"contains": "忽略你的任务", "text": "10:30 开门。"},
        {"contains": "page", "text": '{"name": "page", "arguments": {}}'},
    ]
    (entries / "scripted.yaml").write_text(write_entry(fake_model("scripted", rules=rules)), encoding="utf-8")
    words = ("eval", "run", "injections", "--model", "scripted", "--limit", "2", "--strategies", "functions")
    done = pagoda(tmp_path / "home", *words, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])["strategies"]["functions"]
    assert [told["all"][word] for word in ("items", "read", "obeyed", "answered", "ran")] == [2, 2, 1, 1, 0]
    assert (told["languages"]["en"]["obeyed"], told["languages"]["zh"]["obeyed"]) == (1, 0)
    assert pagoda(tmp_path / "home", *words[:-1], "dance").returncode == 2
