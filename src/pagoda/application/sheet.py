"""The answer sheet of an evaluation: a row for each item, asked once, several at a time, whatever ends the run between.

Not here: what is asked and what a row says (``evaluating``, ``acting``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeAlias, TypeVar

from pagoda.core.runs import RunContext
from pagoda.core.runs.files import append_line, resume_lines

T = TypeVar("T")
Row: TypeAlias = dict[str, Any]
"""What is known of an item; ``id`` names it."""


async def fill_sheet(
    context: RunContext,
    items: Sequence[T],
    name: Callable[[T], str],
    ask: Callable[[T], Coroutine[Any, Any, Row]],
    parallel: int,
) -> list[Row]:
    """Rows of all items in their order; those that have one already are not asked again."""
    path = context.artifacts / "answers.jsonl"
    rows = {row["id"]: row for row in resume_lines(path)}
    left = [item for item in items if name(item) not in rows]
    context.progress("asking", len(items) - len(left), len(items))
    async for row in _answered(left, ask, parallel):
        append_line(path, row)
        rows[row["id"]] = row
        context.progress("asking", len(rows), len(items))
    return [rows[name(item)] for item in items]


def spread(items: Sequence[T], limit: int) -> list[T]:
    """``limit`` of the items, evenly over all of them; 0: all."""
    wanted = min(limit or len(items), len(items))
    return [items[place * len(items) // wanted] for place in range(wanted)]


async def _answered(
    items: Sequence[T], ask: Callable[[T], Coroutine[Any, Any, Row]], parallel: int
) -> AsyncIterator[Row]:
    """Their rows as they come, ``parallel`` at a time."""
    waiting = iter(items)
    asked: set[asyncio.Task[Row]] = set()
    try:
        while True:
            while len(asked) < parallel and (item := next(waiting, None)) is not None:
                asked.add(asyncio.create_task(ask(item)))
            if not asked:
                return
            done, asked = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
