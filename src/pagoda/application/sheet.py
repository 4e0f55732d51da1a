"""An answer sheet: a row for each item of a run, asked once, several at a time, whatever ends the run between.

Not here: what is asked and what a row says (``evaluating``, ``acting``, ``examining``, ``distilling``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from pagoda.core.runs import RunContext
from pagoda.core.runs.files import append_line, resume_lines

T = TypeVar("T")
Row: TypeAlias = dict[str, Any]
"""What is known of an item; the sheet adds its ``id``."""


class Sheet(Generic[T]):
    """The rows of ``items``, in a file of the run; those of an earlier attempt are there already.

    ``name`` tells an item from others, at every attempt alike; ``stage`` is what progress calls the work.
    """

    def __init__(
        self,
        context: RunContext,
        items: Sequence[T],
        name: Callable[[T], str],
        *,
        stage: str = "asking",
        file: str = "answers.jsonl",
    ) -> None:
        self._context = context
        self._items = items
        self._name = name
        self._stage = stage
        self._path = context.artifacts / file
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._rows: dict[str, Row] = {row["id"]: row for row in resume_lines(self._path)}

    @property
    def left(self) -> list[T]:
        """The items that have no row yet."""
        return [item for item in self._items if self._name(item) not in self._rows]

    @property
    def rows(self) -> list[Row]:
        """Rows of all items in their order, once none is left."""
        return [self._rows[self._name(item)] for item in self._items]

    async def fill(self, ask: Callable[[T], Awaitable[Row]], parallel: int) -> list[Row]:
        """Rows of all items in their order; only for those that are left is asked. Raises as ``ask`` does."""
        left, total = self.left, len(self._items)
        done = total - len(left)
        self._context.progress(self._stage, done, total)
        async for item, row in _answered(left, ask, parallel):
            named = {"id": self._name(item), **row}
            append_line(self._path, named)
            self._rows[named["id"]] = named
            done += 1
            self._context.progress(self._stage, done, total)
        return self.rows


def spread(items: Sequence[T], limit: int) -> list[T]:
    """``limit`` of the items, evenly over all of them; 0: all."""
    wanted = min(limit or len(items), len(items))
    return [items[place * len(items) // wanted] for place in range(wanted)]


async def _answered(
    items: Sequence[T], ask: Callable[[T], Awaitable[Row]], parallel: int
) -> AsyncIterator[tuple[T, Row]]:
    """Items with their rows as they come, ``parallel`` at a time."""

    async def one(item: T) -> tuple[T, Row]:
        return item, await ask(item)

    waiting = iter(items)
    asked: set[asyncio.Task[tuple[T, Row]]] = set()
    try:
        while True:
            while len(asked) < parallel and (item := next(waiting, None)) is not None:
                asked.add(asyncio.create_task(one(item)))
            if not asked:
                return
            done, asked = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
