"""Trust wired together: over the collections, reviews and models of a home, for the service and for commands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from pagoda.application.client import home_door
from pagoda.core.ports import Inference
from pagoda.core.settings import Settings
from pagoda.core.storage.store import Store, open_store
from pagoda.logic.retrieval.book import CollectionBook
from pagoda.logic.retrieval.index import Searcher
from pagoda.logic.reviews.book import ReviewBook
from pagoda.logic.trust.desk import TrustDesk


def open_trust(
    settings: Settings,
    store: Callable[[], Awaitable[Store]],
    inference: Callable[[], Inference],
    searcher: Searcher | None = None,
) -> TrustDesk:
    """The desk over these records and models; ``searcher``: one that holds collections in memory already."""
    found = searcher or Searcher(CollectionBook(store), inference)
    return TrustDesk(
        lambda: found,
        inference,
        ReviewBook(store).enter,
        meaning=settings.defaults.embedding,
        reviewers=settings.reviews.reviewers,
    )


@asynccontextmanager
async def home_trust(settings: Settings, environment: Mapping[str, str]) -> AsyncIterator[TrustDesk]:
    """The desk of this home; its service answers for the models, and is started if need be."""
    async with AsyncExitStack() as exit:
        store = await exit.enter_async_context(open_store(settings))
        door = await exit.enter_async_context(home_door(settings, environment))

        async def records() -> Store:
            return store

        yield open_trust(settings, records, lambda: door)
