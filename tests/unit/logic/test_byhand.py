"""Calls by hand and the audit log: no call without a line, and no line that is missing its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pagoda.application.agenting import home_audit
from pagoda.core.errors import StoreError
from pagoda.core.settings import Settings
from pagoda.core.types import Call
from pagoda.logic.tools.byhand import Hand, call_by_hand
from pagoda.logic.tools.function import tool_from
from pagoda.service.keys.book import KeyBook

CALLED: list[str] = []


async def wait() -> None:
    """Wait for somebody."""
    CALLED.append("begun")
    await asyncio.sleep(60)


async def note(text: str) -> str:
    """Note something."""
    CALLED.append(text)
    return text


@pytest_asyncio.fixture
async def book(settings: Settings) -> AsyncIterator[KeyBook]:
    CALLED.clear()
    async with home_audit(settings) as opened:
        yield opened


async def outcomes(book: KeyBook) -> list[str]:
    return [row.outcome for row in reversed(await book.audit(limit=9))]


async def test_a_call_that_is_stopped_is_told_with_its_end(book: KeyBook) -> None:
    task = asyncio.create_task(call_by_hand(Hand(book, "test"), tool_from(wait), {}, Call()))
    while not CALLED:
        await asyncio.sleep(0.001)
    assert await outcomes(book) == ["begun"], "before it is over"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await outcomes(book) == ["begun", "stopped"]


async def test_without_a_log_nothing_is_called(book: KeyBook, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*rows: object) -> None:
        raise StoreError("The database does not answer.")

    monkeypatch.setattr(book, "enter_audit", fail)
    with pytest.raises(StoreError):
        await call_by_hand(Hand(book, "test"), tool_from(note), {"text": "hello"}, Call())
    assert CALLED == []


async def test_what_has_happened_is_told_although_the_log_broke_in_its_middle(
    book: KeyBook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def give(text: str) -> str:
        """Break the log, and give a text."""

        async def fail(*rows: object) -> None:
            raise StoreError("The database does not answer.")

        monkeypatch.setattr(book, "enter_audit", fail)
        return text

    outcome = await call_by_hand(Hand(book, "test"), tool_from(give), {"text": "hello"}, Call())
    assert outcome.result == "hello", "whoever hears of an error would have it done again"
    assert "does not tell that give" in caplog.text
    assert await outcomes(book) == ["begun"]
