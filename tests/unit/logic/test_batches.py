"""Batches: what is wrong with a line, the output that a kill cannot spoil, and the patience of the work."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pagoda.core.errors import Conflict, Overloaded, PagodaError, Rejected, StoreError, Unavailable
from pagoda.core.types import PRIORITIES, Call
from pagoda.logic.batches.answers import AnswerFiles
from pagoda.logic.batches.lines import Demand, Line, check_lines, read_lines
from pagoda.logic.batches.work import Pace, Work

CHAT = "/v1/chat/completions"


def row(custom_id: Any = "a", **fields: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"model": "m"}, **fields}


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in rows))
    return path


def answer(custom_id: str, tokens: int = 3) -> dict[str, Any]:
    usage = {"prompt_tokens": 1, "completion_tokens": tokens}
    response = {"status_code": 200, "request_id": "r", "body": {"usage": usage}}
    return {"id": "x", "custom_id": custom_id, "response": response, "error": None}


@pytest.mark.parametrize(
    ("wrong", "code", "param"),
    [
        ("{not json", "invalid_json_line", None),
        ("[1]", "invalid_json_line", None),
        (row(None), "missing_custom_id", "custom_id"),
        (row("x" * 600), "missing_custom_id", "custom_id"),
        (row("a"), "duplicate_custom_id", "custom_id"),
        (row("b", method="GET"), "invalid_method", "method"),
        (row("b", url="/v1/images"), "invalid_url", "url"),
        (row("b", url="/v1/embeddings"), "mismatched_url", "url"),
        (row("b", body="text"), "missing_body", "body"),
        (row("b", body={}), "missing_model", "body.model"),
        (row("b", extra=1), "unknown_field", "extra"),
    ],
)
def test_a_wrong_line_is_told_with_its_number(tmp_path: Path, wrong: Any, code: str, param: str | None) -> None:
    total, mistakes = check_lines(written(tmp_path / "in", row("a"), "", wrong), Demand(CHAT))
    assert [(mistake.line, mistake.code, mistake.param) for mistake in mistakes] == [(3, code, param)]
    assert total == 1


def test_right_lines_are_read_and_an_empty_file_is_a_mistake(tmp_path: Path) -> None:
    path = written(tmp_path / "in", row("a"), "", row("b", url="/v1/embeddings", body={}))
    demand = Demand(None, needs_model=False)
    assert check_lines(path, demand) == (2, [])
    assert [(line.number, line.custom_id, line.endpoint) for line in read_lines(path, demand)] == [
        (1, "a", CHAT),
        (3, "b", "/v1/embeddings"),
    ]
    assert [mistake.code for mistake in check_lines(written(tmp_path / "none", ""), demand)[1]] == ["empty_file"]


@hypothesis_settings(deadline=None)
@given(st.integers(0, 6), st.integers(0, 2000))
def test_an_output_cut_anywhere_is_finished_with_every_line_once(lines: int, cut: int) -> None:
    with TemporaryDirectory() as folder:
        output, errors = Path(folder) / "out", Path(folder) / "err"
        with AnswerFiles(output, errors) as answers:
            for number in range(lines):
                answers.add(answer(str(number)), failed=number % 3 == 2)
        for path in (output, errors):
            if path.exists():
                path.write_bytes(path.read_bytes()[:cut])
        with AnswerFiles(output, errors) as answers:
            for number in range(lines):
                if str(number) not in answers.done:
                    answers.add(answer(str(number)), failed=number % 3 == 2)
            assert (answers.completed, answers.failed) == (lines - lines // 3, lines // 3)
            assert answers.usage == {"input_tokens": answers.completed, "output_tokens": 3 * answers.completed}
        ids = [
            json.loads(line)["custom_id"]
            for path in (output, errors)
            if path.exists()
            for line in path.read_text().splitlines()
        ]
        assert sorted(ids) == sorted(str(number) for number in range(lines))


def test_damage_in_the_middle_is_told_and_nothing_is_thrown_away(tmp_path: Path) -> None:
    output = written(tmp_path / "out", answer("a"), "\0\0\0", answer("b"))
    before = output.read_bytes()
    with pytest.raises(StoreError, match="damaged at byte"), AnswerFiles(output, tmp_path / "err"):
        pass
    assert output.read_bytes() == before


def test_two_cannot_write_the_same_output(tmp_path: Path) -> None:
    second = AnswerFiles(tmp_path / "out", tmp_path / "other")
    with AnswerFiles(tmp_path / "out", tmp_path / "err"), pytest.raises(Conflict, match="another batch"):
        second.__enter__()
    with AnswerFiles(tmp_path / "out", tmp_path / "err") as answers:
        answers.add(answer("a"), failed=False)
        with pytest.raises(RuntimeError, match="twice"):
            answers.add(answer("a"), failed=False)


def lines_of(*ids: str) -> list[Line]:
    return [Line(number, custom_id, CHAT, {"model": "m"}) for number, custom_id in enumerate(ids, 1)]


def refuse(error: PagodaError) -> tuple[int, Mapping[str, Any]]:
    return 400, {"error": {"message": error.message}}


async def perform(
    tmp_path: Path, ask: Any, ids: list[str], *, pace: Pace | None = None, until: float | None = None
) -> tuple[bool, AnswerFiles]:
    with AnswerFiles(tmp_path / "out", tmp_path / "err") as answers:
        work = Work(ask, refuse, answers, pace or Pace(3, 3), lambda: None)
        in_time = await work.perform(lines_of(*ids), until)
        if not in_time:
            work.expire(lines_of(*ids))
    return in_time, answers


async def test_lines_are_asked_side_by_side_but_no_more_than_the_pace(tmp_path: Path) -> None:
    now = most = 0

    async def ask(line: Line, call: Call) -> Mapping[str, Any]:
        nonlocal now, most
        assert (call.priority, call.purpose) == (PRIORITIES["batch"], "batch")
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        now -= 1
        return {}

    in_time, answers = await perform(tmp_path, ask, [str(number) for number in range(12)])
    assert in_time
    assert answers.completed == 12
    assert most == 3


async def test_what_may_pass_is_asked_again_and_what_cannot_fails_beside_the_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pagoda.logic.batches.work._FIRST_PAUSE_SECONDS", 0.001)
    asked: list[str] = []

    async def ask(line: Line, call: Call) -> Mapping[str, Any]:
        asked.append(line.custom_id)
        if line.custom_id == "weak" and asked.count("weak") < 3:
            raise Unavailable("gone for a moment")
        if line.custom_id == "full" and asked.count("full") < 12:  # more than the tries that failures have
            raise Overloaded("full")
        if line.custom_id == "dead":
            raise Unavailable("gone")
        if line.custom_id == "wrong":
            raise Rejected("no")
        return {}

    pace = Pace(4, 8)
    _, answers = await perform(tmp_path, ask, ["weak", "full", "dead", "wrong", "good"], pace=pace)
    assert (answers.completed, answers.failed) == (3, 2)
    assert asked.count("weak") == 3
    assert asked.count("dead") == 8
    assert asked.count("wrong") == 1
    failed = [json.loads(line) for line in (tmp_path / "err").read_text().splitlines()]
    assert {row["custom_id"]: row["response"]["status_code"] for row in failed} == {"dead": 400, "wrong": 400}


def test_the_pace_grows_by_rounds_and_halves_when_it_is_too_much() -> None:
    pace = Pace(2, 4)
    limits = []
    for _ in range(12):
        pace.went_well()
        limits.append(pace.limit)
    assert limits[:5] == [2, 3, 3, 3, 4]
    assert limits[-1] == 4
    for expected in (2, 1, 1):
        pace.too_much()
        assert pace.limit == expected


async def test_what_is_late_is_written_down_as_expired(tmp_path: Path) -> None:
    async def ask(line: Line, call: Call) -> Mapping[str, Any]:
        if line.custom_id != "quick":
            await asyncio.sleep(3600)
        return {}

    began = time.monotonic()
    in_time, answers = await perform(tmp_path, ask, ["quick", "slow", "slower"], until=time.time() + 0.2)
    assert not in_time
    assert time.monotonic() - began < 60
    assert (answers.completed, answers.failed) == (1, 2)
    failed = [json.loads(line) for line in (tmp_path / "err").read_text().splitlines()]
    assert [(row["custom_id"], row["response"], row["error"]["code"]) for row in failed] == [
        ("slow", None, "batch_expired"),
        ("slower", None, "batch_expired"),
    ]


async def test_a_stopped_work_asks_no_more_and_the_next_one_goes_on(tmp_path: Path) -> None:
    class Stop(BaseException):
        pass

    asked: list[str] = []

    async def ask(line: Line, call: Call) -> Mapping[str, Any]:
        asked.append(line.custom_id)
        return {}

    ids = [str(number) for number in range(10)]
    stop: Callable[[], None] = lambda: (_ for _ in ()).throw(Stop) if len(asked) >= 4 else None  # noqa: E731
    with AnswerFiles(tmp_path / "out", tmp_path / "err") as answers:
        with pytest.raises(Stop):
            await Work(ask, refuse, answers, Pace(2, 2), stop).perform(lines_of(*ids), None)
        assert 0 < answers.completed < 10
    first = set(answers.done)
    asked.clear()
    _, answers = await perform(tmp_path, ask, ids)
    assert answers.completed == 10
    assert not first & set(asked)
