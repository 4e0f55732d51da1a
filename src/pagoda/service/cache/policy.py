"""When an answer may come from the cache and when it may enter it: the caller's wish, the route's rule, the request.

By default only what would be computed equal again: greedy or seeded, one choice; and embeddings. Knows no store.
"""

from __future__ import annotations

from dataclasses import dataclass

from pagoda.core.settings import Cache
from pagoda.core.types import Call, Embed
from pagoda.model.catalog.entry import ModelEntry, ReasoningForm
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
    joins: ReasoningForm | None = None
    """A kept answer's text is given in one piece, unless by this form it begins with thinking."""


BYPASS = Use()


def use_of(settings: Cache, model: ModelEntry, request: Request, call: Call) -> Use:
    """What the cache does for a call."""
    if call.cache == "only":
        joins = joining(model, request, call)
        return Use(read=settings.enabled, only=True, max_age=call.cache_max_age, joins=joins)
    routes = settings.routes
    rule = routes.get(call.route) or routes.get(call.purpose) or routes.get("*", "deterministic")
    if not settings.enabled or rule == "never" or call.cache == "bypass":
        return BYPASS
    if not (rule == "always" or call.cache == "use" or deterministic(model, request)):
        return BYPASS
    fresh = call.cache == "refresh"
    semantic, joins = rule == "semantic" and not fresh, joining(model, request, call)
    return Use(read=not fresh, keep=True, semantic=semantic, max_age=call.cache_max_age, joins=joins)


def joining(model: ModelEntry, request: Request, call: Call) -> ReasoningForm | None:
    """How thinking would show in an answer that may else be given in one piece; ``None`` where it may not.

    Tokens of thinking are counted by the pieces that they came in, so an answer that may begin within thinking keeps
    them all.
    """
    if not call.whole or isinstance(request, Embed) or request.continue_final or model.reasoning.opened:
        return None
    return model.reasoning


def deterministic(model: ModelEntry, request: Request) -> bool:
    """Whether asking again would give the same: embeddings; one choice, greedy or from a seed."""
    if isinstance(request, Embed):
        return True
    sampling = request.sampling
    temperature = sampling.temperature if sampling.temperature is not None else model.sampling.get("temperature")
    return request.n == 1 and (temperature == 0 or sampling.seed is not None)
