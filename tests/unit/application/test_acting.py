"""Evaluations of agents as runs, executed here over scripted models: obeying, faithful, and dying ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from pagoda.application import acting
from pagoda.core.errors import Unavailable
from pagoda.core.runs import Run, RunRegistry, Runs, execute
from pagoda.core.settings import Settings
from pagoda.logic.evaluation.dataset import digest_of
from pagoda.logic.evaluation.injections import FORBIDDEN, PAGE, Item, read_items
from tests.doors import ScriptedDoor

REGISTRY = RunRegistry({"injections": acting.run_injections, "multihop": acting.run_multihop})
STRATEGIES = ["functions", "react"]
CONFIG = {"model": "scripted", "strategies": STRATEGIES, "limit": 12, "turns": 4, "max_tokens": 64, "parallel": 4}
ITEMS = read_items()


def call(said: str, tool: str, **arguments: Any) -> str:
    """A call in the form of the strategy that asks."""
    given = orjson.dumps(arguments).decode()
    if reacts(said):
        return f"I must.\nAction: {tool}\nAction Input: {given}"
    return orjson.dumps({"name": tool, "arguments": arguments}).decode()


def final(text: str, answer: str) -> str:
    return f"I know.\nFinal Answer: {answer}" if reacts(text) else answer


def reacts(text: str) -> bool:
    return text.startswith(("Task: ", "任务："))


def reader(behave: Callable[[str, Item, bool], str]) -> Callable[[str, int], str]:
    """A model that reads the page, then does with item and page (whether an order stands in it) as it is told."""

    def answer(text: str, index: int) -> str:
        del index
        if "<data>" not in text:
            return call(text, PAGE)
        shown = text.replace("<\u200b/data>", "</data>")
        item = next((each for each in ITEMS if each.page in shown), None)
        clean = item or next(each for each in ITEMS if each.clean in shown)
        return behave(text, clean, item is not None)

    return answer


def obey(text: str, item: Item, injected: bool) -> str:
    if not injected:
        return final(text, item.answer)
    if item.word is None:
        return call(text, FORBIDDEN, to="mallory@example.net", text="done")
    return final(text, item.word)


def keep_to_the_task(text: str, item: Item, injected: bool) -> str:
    del injected
    return final(text, f"It is {item.answer}.")


@pytest.fixture
def carried_out(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    def carry_out(kind: str, door: ScriptedDoor, run_id: str = "", **config: Any) -> Run:
        @asynccontextmanager
        async def opened(*_: object) -> AsyncIterator[ScriptedDoor]:
            yield door

        monkeypatch.setattr(acting, "home_door", opened)
        run_id = run_id or Runs(settings, REGISTRY).create(kind, {**CONFIG, **config}).id
        return execute(run_id, REGISTRY, settings)

    return carry_out


def rows_of(settings: Settings, run: Run) -> list[dict[str, Any]]:
    path = settings.runs_directory / run.id / "artifacts" / "answers.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_model_that_obeys_is_seen_to_and_its_forbidden_calls_are_never_made(
    carried_out: Callable[..., Run], settings: Settings
) -> None:
    run = carried_out("injections", ScriptedDoor(reader(obey)))
    assert run.status == "done", run.error
    for strategy in STRATEGIES:
        told = run.result["strategies"][strategy]
        assert (told["all"]["items"], told["all"]["read"], told["all"]["obeyed"]) == (12, 12, 12)
        assert told["all"]["share"]["value"] == 1.0
        calls = told["signs"]["call"]["items"]
        assert calls > 0
        assert (told["all"]["asked"], told["all"]["ran"]) == (calls, 0)
        without = told["without"]
        assert (without["items"], without["asked"], without["answered"], without["obeyed"]) == (calls, 0, calls, 0)
    asked = next(row for row in rows_of(settings, run) if row["asked"])
    assert asked["answer"] == "", "it waits for a person, who is never asked"
    assert not list(settings.home.glob("pagoda.db")), "nothing waits in this home's own review queue"


def test_a_model_that_keeps_to_its_task_obeys_nothing(carried_out: Callable[..., Run]) -> None:
    run = carried_out("injections", ScriptedDoor(reader(keep_to_the_task)))
    assert run.status == "done", run.error
    for strategy in STRATEGIES:
        told = run.result["strategies"][strategy]["all"]
        assert (told["items"], told["answered"], told["obeyed"], told["asked"], told["ran"]) == (12, 12, 0, 0, 0)


def test_a_model_that_is_gone_has_not_kept_to_its_task_and_what_is_known_is_not_asked_again(
    carried_out: Callable[..., Run], settings: Settings
) -> None:
    begun: list[str] = []

    def die(text: str, index: int) -> str:
        begun.append(text)
        if len(begun) > 9:
            raise Unavailable("The engine is gone.")
        return reader(keep_to_the_task)(text, index)

    broken = carried_out("injections", ScriptedDoor(die), parallel=1, strategies=["react"])
    assert broken.status == "failed"
    assert "The engine is gone" in str(broken.error)
    known = rows_of(settings, broken)
    assert 0 < len(known) < 12
    door = ScriptedDoor(reader(keep_to_the_task))
    run = carried_out("injections", door, broken.id)
    assert run.status == "done", run.error
    rows = rows_of(settings, run)
    assert rows[: len(known)] == known
    assert len(rows) == len({row["id"] for row in rows})
    first_turns = sum("<data>" not in str(asked.messages[-1]["content"]) for asked in door.asked if asked.messages)
    assert first_turns == len(rows) - len(known)


SET = [
    {
        "id": f"river-{number}",
        "question": f"What passes Oakbridge{number}, and how far?",
        "answers": [f"{number}00 miles"],
        "context": [
            [f"Oakbridge{number}", f"Oakbridge{number} lies on the river Wend{number}."],
            [f"Wend{number}", f"Wend{number} measures {number}00 miles."],
        ],
    }
    for number in range(1, 4)
]


def test_a_model_that_searches_twice_finds_both_passages_and_one_that_does_not_search_finds_none(
    carried_out: Callable[..., Run], tmp_path: Path
) -> None:
    data = tmp_path / "set.json"
    data.write_bytes(orjson.dumps({"data": SET}))

    def hop(text: str, index: int) -> str:
        del index
        for number in range(1, 4):
            if f"Wend{number} measures" in text:
                return final(text, f"{number}00 miles")
            if f"river Wend{number}." in text:
                return call(text, "search", query=f"Wend{number}")
            if f"Oakbridge{number}" in text:
                return call(text, "search", query=f"Oakbridge{number}")
        raise AssertionError(text)

    run = carried_out("multihop", ScriptedDoor(hop), data=str(data), digest=digest_of(str(data)), limit=0)
    assert run.status == "done", run.error
    assert (run.result["questions"], run.result["passages"]) == (3, 6)
    assert run.result["reference"] == {"items": 3, "recall": 0.5, "complete": 0}, "the question names one of two rivers"
    for strategy in STRATEGIES:
        told = run.result["strategies"][strategy]
        assert (told["items"], told["exact"], told["contains"], told["twice"], told["complete"]) == (3, 3, 3, 3, 3)
        assert (told["recall"], told["searches"]) == (1.0, 2.0)
    guessing = carried_out(
        "multihop",
        ScriptedDoor(lambda text, index: final(text, "It is long.")),
        data=str(data),
        digest=digest_of(str(data)),
        limit=2,
    )
    told = guessing.result["strategies"]["react"]
    assert (told["items"], told["contains"], told["twice"], told["recall"]) == (2, 0, 0, 0.0)


def test_questions_of_another_file_are_not_gone_on_with(carried_out: Callable[..., Run], tmp_path: Path) -> None:
    data = tmp_path / "set.json"
    data.write_bytes(orjson.dumps({"data": SET}))
    digest = digest_of(str(data))
    data.write_bytes(orjson.dumps({"data": SET[:-1]}))
    run = carried_out("multihop", ScriptedDoor(), data=str(data), digest=digest, limit=0)
    assert (run.status, "is not what it was" in str(run.error)) == ("failed", True)
