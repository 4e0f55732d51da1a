"""Opens the response cache that settings describe."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from pagoda.core.settings import Cache
from pagoda.model.catalog.entry import ModelEntry
from pagoda.model.engines.contract import Room
from pagoda.service.cache.embedded import EmbeddedStore
from pagoda.service.cache.redis_store import RedisStore
from pagoda.service.cache.responses import ResponseCache
from pagoda.service.cache.semantic import Embedder, SemanticIndex, semantic_objection
from pagoda.service.cache.store import CacheStore
from pagoda.service.telemetry import Telemetry

logger = logging.getLogger(__name__)

MAX_ENTRY_BYTES = 4 * 1024 * 1024
"""A larger answer is not kept: it would push out thousands of others."""


def open_cache(
    settings: Cache,
    identify: Callable[[ModelEntry], bytes | None],
    room: Callable[[], Room],
    telemetry: Telemetry,
    semantic: SemanticIndex | None = None,
) -> ResponseCache:
    """The cache with its store. Raises ``ConfigError`` for an address that is none; Redis may still be away."""
    return ResponseCache(settings, open_store(settings, telemetry), identify, room, telemetry, semantic)


def open_semantic(settings: Cache, path: Path, model: str, embed: Embedder) -> tuple[SemanticIndex | None, str]:
    """The semantic index, if a route asks for one and the calibration at ``path`` allows it, and a sentence on it."""
    if "semantic" not in settings.routes.values():
        return None, ""
    approval, objection = semantic_objection(path, model, settings.semantic_max_false_hits)
    if approval is None:
        said = f"The semantic cache stays off: {objection} Its routes use exact answers only."
        logger.warning("%s", said)
        return None, said
    said = (
        f"The semantic cache is on: {approval.false_hits:.1%} false hits and {approval.true_hits:.1%} true hits were "
        f"measured with {model}."
    )
    logger.info("%s", said)
    return SemanticIndex(approval.threshold, embed), said


def open_store(settings: Cache, telemetry: Telemetry) -> CacheStore:
    """The store in process, or Redis when an address is set: there is no tier of our own before it, since a purge by
    another service could not reach that."""
    if settings.redis_url:
        return RedisStore(settings.redis_url.reveal(), settings.redis_seconds, MAX_ENTRY_BYTES, telemetry)
    store = EmbeddedStore(settings.max_bytes, MAX_ENTRY_BYTES, evicted=telemetry.cache_events.count("evicted").inc)
    telemetry.cache_working.set(1)
    telemetry.cache_bytes.set_function(lambda: store.bytes)
    telemetry.cache_entries.set_function(lambda: len(store))
    return store
