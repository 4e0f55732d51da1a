"""When an answer may come from the cache and when it may enter it: the caller's wish, the route's rule, the request.

By default only what would be computed equal again: greedy or seeded, one choice; and embeddings. Knows no store.
"""

from __future__ import annotations

from dataclasses import dataclass

from pagoda.core.settings import Cache
from pagoda.core.types import Call, Embed
from pagoda.model.catalog.entry import ModelEntry
from pagoda.service.cache.key import Request


@dataclass(frozen=True, slots=True)
class Use:
    """What the cache does for a call; neither read nor kept is a bypass."""

    read: bool = False
    keep: bool = False
    only: bool = False
    """The engine is not asked."""
    semantic: bool = False
    max_age: float | None = None


BYPASS = Use()


def use_of(settings: Cache, model: ModelEntry, request: Request, call: Call) -> Use:
    """What the cache does for a call."""
    if call.cache == "only":
        return Use(read=settings.enabled, only=True, max_age=call.cache_max_age)
    routes = settings.routes
    rule = routes.get(call.route) or routes.get(call.purpose) or routes.get("*", "deterministic")
    if not settings.enabled or rule == "never" or call.cache == "bypass":
        return BYPASS
    if not (rule == "always" or call.cache == "use" or deterministic(model, request)):
        return BYPASS
    fresh = call.cache == "refresh"
    return Use(read=not fresh, keep=True, semantic=rule == "semantic" and not fresh, max_age=call.cache_max_age)


def deterministic(model: ModelEntry, request: Request) -> bool:
    """Whether asking again would give the same: embeddings; one choice, greedy or from a seed."""
    if isinstance(request, Embed):
        return True
    sampling = request.sampling
    temperature = sampling.temperature if sampling.temperature is not None else model.sampling.get("temperature")
    return request.n == 1 and (temperature == 0 or sampling.seed is not None)
