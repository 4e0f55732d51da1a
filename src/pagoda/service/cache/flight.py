"""A flight: one piece of work that any number of requests wait for, each reading its items from the first to the last.

The work goes on while anybody waits and is cancelled when nobody does; its error goes to all. It has no deadline of its
own: each waiter leaves when its own has passed, so the work ends with the latest of those waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Generic, TypeVar

from pagoda.core.errors import Unavailable

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Flight(Generic[T]):
    """Begins when made. ``join`` before reading ``items``, ``leave`` after; nobody joins once it is ``over``."""

    def __init__(
        self,
        produce: Callable[[], AsyncIterator[T]],
        settle: Callable[[Sequence[T]], Awaitable[None]],
        over: Callable[[Flight[T]], None],
    ) -> None:
        self.waiting = 0
        self.complete = False
        self._produce = produce
        self._settle = settle
        self._over = over
        self._items: list[T] = []
        self._error: BaseException | None = None
        self._readers: list[asyncio.Future[None]] = []
        """Those that have read all there is."""
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._ended)

    def join(self) -> None:
        """One more waits."""
        self.waiting += 1

    def leave(self) -> None:
        """One less waits; the last one to leave unfinished work ends it."""
        self.waiting -= 1
        if self.waiting == 0 and not self.complete:
            self._over(self)
            self._task.cancel()

    async def items(self) -> AsyncIterator[T]:
        """All items, those that came before too, as they come. Raises the work's error."""
        place = 0
        while True:
            while place < len(self._items):
                yield self._items[place]
                place += 1
            if self.complete:
                return
            if self._error is not None:
                if isinstance(self._error, asyncio.CancelledError):
                    raise Unavailable("The service stopped in mid-answer; ask again.") from None
                raise self._error
            reader: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._readers.append(reader)
            await reader

    async def close(self) -> None:
        """End it, whoever waits."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            async with aclosing(self._produce()) as items:  # type: ignore[type-var]
                async for item in items:
                    self._items.append(item)
                    self._grow()
        except BaseException as error:
            self._fail(error)
            raise
        self.complete = True
        self._grow()
        await self._settle(self._items)

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._over(self)
        self._grow()

    def _grow(self) -> None:
        readers, self._readers = self._readers, []
        for reader in readers:
            if not reader.done():
                reader.set_result(None)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not self.complete and self._error is None:  # cancelled before its first step
            self._fail(asyncio.CancelledError())
        self._over(self)
        error = None if task.cancelled() else task.exception()
        if error is not None and self.complete:  # errors before that were given to those who waited
            logger.error("a complete answer could not be kept", exc_info=error)
