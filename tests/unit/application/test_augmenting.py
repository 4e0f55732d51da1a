"""Augmentation as a run: what an attempt made stays, and nothing is made with other rows than it began with."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pagoda.application import augmenting
from pagoda.application.registry import run_kinds
from pagoda.core.errors import Unavailable
from pagoda.core.runs import Run, RunRegistry, Runs, execute
from pagoda.core.settings import Settings
from pagoda.model.data.augmentation import PROVENANCE, Plan
from pagoda.model.data.reading import read_data
from tests.doors import ScriptedDoor
from tests.rows import write_jsonl


class Tired(ScriptedDoor):
    """Answers so many requests, and then no more."""

    def __init__(self, answers: int) -> None:
        super().__init__(self._said)
        self._left = answers

    def _said(self, text: str, _: int) -> str:
        self._left -= 1
        if self._left < 0:
            raise Unavailable("Enough for today.", retryable=True)
        return f"{text.splitlines()[-1]} indeed"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_jsonl(
        tmp_path / "rows.jsonl",
        ({"prompt": f"Where is parcel {n} of mine?", "completion": "Here."} for n in range(6)),
    )


def begin(settings: Settings, rows: Path, tmp_path: Path) -> tuple[Run, RunRegistry]:
    asked: dict[str, Any] = {"form": None, "columns": {}, "model": None}
    places = {"out": str(tmp_path / "more.jsonl"), "dropped": str(tmp_path / "dropped.jsonl")}
    plan = Plan(methods=("paraphrase",), share=1, least_alike=0.2)
    config = augmenting.plan_augmentation(read_data(str(rows)), {**asked, **places}, plan)
    registry = RunRegistry(run_kinds())
    return Runs(settings, registry).create(augmenting.KIND, config), registry


def answered_by(door: ScriptedDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def open_door(*_: object) -> AsyncIterator[ScriptedDoor]:
        yield door

    monkeypatch.setattr(augmenting, "home_door", open_door)


def test_a_resumed_run_asks_only_for_what_is_not_made_yet(
    settings: Settings, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, registry = begin(settings, rows, tmp_path)
    answered_by(Tired(4), monkeypatch)
    assert execute(run.id, registry, settings).status == "failed"
    assert not (tmp_path / "more.jsonl").exists()

    door = Tired(6)
    answered_by(door, monkeypatch)
    done = execute(run.id, registry, settings)
    assert done.status == "done", done.error
    assert len(door.asked) == 2
    more = [json.loads(line) for line in (tmp_path / "more.jsonl").read_text(encoding="utf-8").splitlines()]
    new = [row for row in more if PROVENANCE in row]
    assert sorted(row[PROVENANCE]["row"] for row in new) == [1, 2, 3, 4, 5, 6]
    assert done.result == {"rows": 6, "added": 6, "dropped": 0, "out": str(tmp_path / "more.jsonl")}


def test_a_run_does_not_go_on_with_other_rows(
    settings: Settings, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, registry = begin(settings, rows, tmp_path)
    rows.write_text(rows.read_text(encoding="utf-8").replace("parcel", "letter"), encoding="utf-8")
    answered_by(Tired(6), monkeypatch)
    done = execute(run.id, registry, settings)
    assert (done.status, "is not what it was" in str(done.error)) == ("failed", True)
