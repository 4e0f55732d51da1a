"""Who takes down what is said: in memory first, written in batches, and forgotten after its time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from pagoda.core.errors import PagodaError, StoreError
from pagoda.core.recurring import recur
from pagoda.core.settings import Log
from pagoda.core.storage.text import storable
from pagoda.core.types import Call, CallDelta, Delta, Event, Generation
from pagoda.service.contents.masking import masked

if TYPE_CHECKING:
    from pagoda.core.storage.store import Store

logger = logging.getLogger(__name__)

_WRITE_SECONDS = 1.0
_PRUNE_SECONDS = 600.0
_MOST_WAITING = 1000
_MOST_CHARACTERS = 200_000


class Recorder:
    """Takes down calls as ``log.content`` says. While the database is away the newest thousand wait in memory.

    ``exist`` says whether there are records at all: none are made where nothing is taken down.
    """

    def __init__(self, settings: Log, records: Callable[[], Awaitable[Store]], exist: Callable[[], bool]) -> None:
        self._settings = settings
        self._records = records
        self._exist = exist
        self._rows: list[dict[str, Any]] = []
        self._writing: asyncio.Task[None] | None = None
        self._pruned: float | None = None

    def start(self) -> None:
        """Write from now on; what is too old goes even where nothing is taken down any more."""
        self._writing = asyncio.create_task(recur(self._work, _WRITE_SECONDS))

    async def close(self) -> None:
        """Write what is left."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
            await self.flush()

    def heard(self, events: AsyncIterator[Event], request: Generation, call: Call) -> AsyncIterator[Event]:
        """The same events, taken down if that is wanted."""
        return events if self._settings.content == "off" else self._heard(events, request, call)

    async def _heard(self, events: AsyncIterator[Event], request: Generation, call: Call) -> AsyncIterator[Event]:
        said: list[str] = []
        status = "cancelled"
        try:
            async with aclosing(events) as source:  # type: ignore[type-var]
                async for event in source:
                    if isinstance(event, Delta):
                        said.append(event.text)
                    elif isinstance(event, CallDelta):
                        said.append(f"{event.name} {event.arguments}" if event.name else event.arguments)
                    yield event
            status = "ok"
        except PagodaError as error:
            status = error.code
            raise
        finally:
            if self._settings.content == "all" or status not in ("ok", "cancelled"):
                self._keep(request, call, status, "".join(said))

    def _keep(self, request: Generation, call: Call, status: str, answer: str) -> None:
        asked = request.prompt if request.messages is None else request.messages
        prompt = asked if isinstance(asked, str) else orjson.dumps(asked, default=dict).decode()
        row = {
            "at": datetime.now(UTC),
            "request_id": call.request_id,
            "key_id": call.key_id or "local",
            "team": call.tenant,
            "user": call.user,
            "model": request.model,
            "route": call.route,
            "status": status,
            "prompt": masked(prompt)[:_MOST_CHARACTERS],
            "answer": masked(answer)[:_MOST_CHARACTERS],
        }
        self._rows.append({name: storable(value) for name, value in row.items()})
        del self._rows[:-_MOST_WAITING]

    async def flush(self) -> None:
        """Write what waits; it goes on waiting where the database does not answer."""
        from pagoda.service.contents.shelf import add  # noqa: PLC0415  (it brings the database)

        if not self._rows:
            return
        rows, self._rows = self._rows, []
        try:
            await add(await self._records(), rows)
        except StoreError as error:
            self._rows = [*rows, *self._rows][-_MOST_WAITING:]
            logger.warning("prompts and answers wait to be written: %s", error.message)

    async def _work(self) -> None:
        await self.flush()
        now = asyncio.get_running_loop().time()
        if self._exist() and (self._pruned is None or now - self._pruned >= _PRUNE_SECONDS):
            self._pruned = now
            await self._prune()

    async def _prune(self) -> None:
        from pagoda.service.contents.shelf import prune  # noqa: PLC0415

        try:
            await prune(await self._records(), self._settings.content_days)
        except StoreError as error:
            logger.warning("old prompts and answers were not deleted: %s", error.message)
