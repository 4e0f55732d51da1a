"""The response cache: one call around whatever gives an answer, which then comes from the store, a flight, or there.

The key needs no running engine, so a hit neither waits in a queue nor starts anything. What is kept are the engine's
own events: whatever checks answers above does so again on every replay.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from itertools import islice

from pagoda.core.errors import ModelTimeout
from pagoda.core.settings import Cache
from pagoda.core.types import CacheUse, Call, Delta, Embeddings, Finish, Started, Usage
from pagoda.model.catalog.entry import ModelEntry, ReasoningForm
from pagoda.model.engines.contract import Room
from pagoda.service.cache.decoded import Decoded
from pagoda.service.cache.entry import Entry, Item, UnusableEntry, encode_entry
from pagoda.service.cache.flight import Flight
from pagoda.service.cache.key import Request, cache_key
from pagoda.service.cache.policy import Use, use_of
from pagoda.service.cache.semantic import SIMILAR, Question, SemanticIndex
from pagoda.service.cache.store import CacheStore, Found, Key, Purged, Scope, StoreState
from pagoda.service.note import SLOT
from pagoda.service.telemetry import Telemetry

NOT_CACHED = "not_cached"
"""Code of the error of a call that wanted a cached answer or none."""


class ResponseCache:
    """``identify`` gives a model's digest (``None``: not known yet), ``room`` what engines are started with."""

    def __init__(
        self,
        settings: Cache,
        store: CacheStore,
        identify: Callable[[ModelEntry], bytes | None],
        room: Callable[[], Room],
        telemetry: Telemetry,
        semantic: SemanticIndex | None = None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._identify = identify
        self._room = room
        self._telemetry = telemetry
        self._semantic = semantic
        self._flights: dict[bytes, tuple[Key, Flight[Item]]] = {}
        self._decoded = Decoded()

    def stream(
        self, model: ModelEntry, request: Request, call: Call, produce: Callable[[bool], AsyncIterator[Item]]
    ) -> AsyncIterator[Item]:
        """The answer's items. ``produce`` asks the engine and is called only when it has to be, with whether the work
        is shared by all who ask for the same."""
        use = use_of(self._settings, model, request, call)
        identity = self._identify(model) if use.read or use.keep else None
        if identity is not None:
            keys = partial(cache_key, call.tenant, model, identity, self._room())
            return self._keyed(keys, request, use, produce)
        if use.only:
            raise _not_cached(model.id)
        self._count(model.id, "bypass")
        return produce(False)

    async def _keyed(
        self, keys: Callable[[Request], Key], request: Request, use: Use, produce: Callable[[bool], AsyncIterator[Item]]
    ) -> AsyncIterator[Item]:
        """From a flight that is on its way, from the store, or by a flight of its own."""
        key, question = keys(request), None
        flown = self._flights.get(key.digest) if use.read and not use.only else None
        if flown is None:
            found = await self._store.get(key)
            entry = await self._usable(key, found, use) if use.read else None
            if entry is not None:
                self._count(key.model, "hit")
                for item in _replayed(entry, use):
                    yield item
                return
            if use.only:
                raise _not_cached(key.model)
            if use.semantic and self._semantic is not None:
                question = await self._semantic.question(key.tenant, request, lambda blank: keys(blank).digest)
                if question is not None and (entry := await self._similar(key, question, use)) is not None:
                    self._count(key.model, "hit")
                    for item in _replayed(entry, use, SIMILAR):
                        yield item
                    return
            flown = self._flights.get(key.digest) if use.read else None  # one may have begun meanwhile
        result: CacheUse = "hit"
        if flown is None:
            result, flight = "miss", self._begin(key, request, found, produce, question)
        else:
            flight = flown[1]
            if (note := SLOT.get()) is not None:
                note.shared = True
        self._count(key.model, result)
        flight.join()
        try:
            async for item in flight.items():
                yield _marked(item, result)
        finally:
            flight.leave()

    async def purge(self, scope: Scope) -> Purged:
        """Forget what is kept; answers on their way reach those who wait for them, and nobody else."""
        for digest, (key, _) in list(self._flights.items()):
            if scope.covers(key.tenant, key.model):
                del self._flights[digest]
        self._decoded.forget()
        return await self._store.purge(scope)

    async def state(self) -> StoreState:
        """What the store holds."""
        return await self._store.state()

    async def close(self) -> None:
        """End the work on its way, and let go of the store."""
        await asyncio.gather(*(flight.close() for _, flight in list(self._flights.values())))
        await self._store.close()

    async def _similar(self, key: Key, question: Question, use: Use) -> Entry | None:
        """The answer to the nearest question that is near enough; it stays under its own key."""
        if self._semantic is None or (digest := self._semantic.nearest(question)) is None:
            return None
        near = Key(key.tenant, key.model, digest)
        entry = await self._usable(near, await self._store.get(near), use)
        if entry is None:
            self._semantic.forget(digest, question)
        else:
            self._telemetry.cache_events.count("similar").inc()
        return entry

    async def _usable(self, key: Key, found: Found, use: Use) -> Entry | None:
        """The entry that was found, if it is whole, of this version, and young enough."""
        if found.value is None:
            return None
        try:
            entry = self._decoded.entry(key.digest, found.value)
        except UnusableEntry as flaw:
            self._telemetry.cache_ignored.labels(flaw.reason).inc()
            await self._store.drop(key)
            return None
        age = time.time() - entry.made
        return None if use.max_age is not None and age > use.max_age else entry

    def _begin(
        self,
        key: Key,
        request: Request,
        found: Found,
        produce: Callable[[bool], AsyncIterator[Item]],
        question: Question | None,
    ) -> Flight[Item]:
        async def settle(items: Sequence[Item]) -> None:
            if found.stamp is None or not _whole(request, items) or _stood_in(key, items):
                return
            raw = encode_entry(key.digest, Entry(time.time(), tuple(items)))
            kept = await self._store.put(key, raw, self._settings.ttl_seconds, found.stamp)
            self._telemetry.cache_events.count("kept" if kept else "refused").inc()
            if kept and question is not None and self._semantic is not None:
                self._semantic.add(key.digest, question)

        def over(flight: Flight[Item]) -> None:
            if (flown := self._flights.get(key.digest)) is not None and flown[1] is flight:
                del self._flights[key.digest]

        flight = Flight(lambda: produce(True), settle, over)
        self._flights[key.digest] = (key, flight)
        return flight

    def _count(self, model_id: str, result: CacheUse) -> None:
        self._telemetry.cache_requests.count(model_id, result).inc()


def _whole(request: Request, items: Sequence[Item]) -> bool:
    """Whether this is a complete answer."""
    last = items[-1] if items else None
    if isinstance(last, Embeddings):
        return True
    return isinstance(last, Usage) and sum(isinstance(item, Finish) for item in items) >= getattr(request, "n", 1)


def _stood_in(key: Key, items: Sequence[Item]) -> bool:
    """Whether another model answered in place of the one that was asked."""
    first = items[0]
    return isinstance(first, Started) and first.model != key.model


def _replayed(entry: Entry, use: Use, *warnings: str) -> Iterator[Item]:
    """A kept answer; what says that it is one stands in its first item."""
    items = iter(entry.items if use.joins is None or _thinks(entry, use.joins) else entry.joined)
    for item in islice(items, 1):
        yield _marked(item, "hit", *warnings, replayed=True)
    yield from items


def _thinks(entry: Entry, form: ReasoningForm) -> bool:
    """Whether the text of a choice begins with thinking."""
    texts = (item.text for item in entry.joined if isinstance(item, Delta))
    return any(text.lstrip().startswith(form.start) for text in texts)


def _marked(item: Item, result: CacheUse, *warnings: str, replayed: bool = False) -> Item:
    if isinstance(item, Started):
        told = (*item.warnings, *warnings)
        return Started(item.model, item.engine, told, result, replayed)
    return dataclasses.replace(item, cache=result) if isinstance(item, Embeddings) else item


def _not_cached(model_id: str) -> ModelTimeout:
    return ModelTimeout(
        f"No answer of {model_id} to this request is cached; ask without only-if-cached.",
        code=NOT_CACHED,
        retryable=False,
    )
