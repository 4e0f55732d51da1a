"""``/api/v1/cache``."""

from __future__ import annotations

from typing import Literal

from pagoda.interface.schemas.shared import Shape


class CacheState(Shape):
    """What the response cache holds; ``max_bytes`` is null where Redis bounds itself."""

    kind: Literal["embedded", "redis"]
    working: bool
    entries: int
    bytes: int
    max_bytes: int | None
    semantic: str
    """Whether the semantic cache is on, and if not why; empty where no route asks for it."""


class CachePurged(Shape):
    """What a purge removed."""

    entries: int
    bytes: int
