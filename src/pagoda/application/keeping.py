"""The records for commands: opened for one question or change, and a running service told where keys changed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pagoda.application.joining import join_running
from pagoda.core.errors import PagodaError
from pagoda.core.settings import Settings
from pagoda.core.storage.store import Store, open_store
from pagoda.service.keys.book import KeyBook

T = TypeVar("T")

logger = logging.getLogger(__name__)


async def with_book(settings: Settings, ask: Callable[[KeyBook], Awaitable[T]], *, tell: bool) -> T:
    """What the book answers. With ``tell`` this home's service, if one runs, looks at its keys again at once."""
    answer = await with_records(settings, lambda opened: ask(KeyBook(opened)))
    if tell:
        await _tell(settings)
    return answer


async def with_records(settings: Settings, ask: Callable[[Callable[[], Awaitable[Store]]], Awaitable[T]]) -> T:
    """What is answered by whoever is given the records, opened meanwhile."""
    async with open_store(settings) as store:

        async def opened() -> Store:
            return store

        return await ask(opened)


async def nothing() -> None:
    """For a command, which holds nothing back that would have to be written first."""


async def _tell(settings: Settings) -> None:
    door = join_running(settings)
    if door is None:
        return
    try:
        await door.renew_keys()
    except PagodaError as error:  # the change is made; the service finds it by itself
        logger.warning(
            "the running service was not told (%s); it notices within %g s.", error, settings.keys.refresh_seconds
        )
    finally:
        await door.close()
