"""Work that is done again and again: what it did not expect does not end it."""

from __future__ import annotations

import asyncio
import logging

import pytest

from pagoda.core.recurring import recur
from tests.services import eventually


async def test_the_first_turn_may_come_at_once() -> None:
    turns: list[None] = []

    async def work() -> None:
        turns.append(None)

    tasks = [asyncio.create_task(recur(work, 3600, at_once=at_once)) for at_once in (True, False)]
    await eventually(lambda: bool(turns))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(turns) == 1


async def test_a_turn_that_fails_unexpectedly_is_told_and_the_next_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    turns: list[int] = []

    async def work() -> None:
        turns.append(len(turns))
        if len(turns) == 2:
            raise RuntimeError("nobody thought of this")

    task = asyncio.create_task(recur(work, 0.001))
    with caplog.at_level(logging.ERROR):
        await eventually(lambda: len(turns) >= 4)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record.exc_info is not None for record in caplog.records] == [True]
    assert "nobody thought of this" in caplog.text
