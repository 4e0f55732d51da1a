"""What a store of cached answers promises, in process or in Redis: bytes under a key, for a time, until purged.

A purge also reaches answers that were being computed when it came: ``get`` hands out a stamp, and ``put`` keeps nothing
whose stamp is older than a purge that covers its key. Losing an entry is always allowed; giving a wrong one never is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Key:
    """``digest`` covers all that may change the answer; tenant and model id stand beside it for purging."""

    tenant: str
    model: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Scope:
    """What a purge covers: ``None`` means all of them."""

    tenant: str | None = None
    model: str | None = None

    def covers(self, tenant: str, model: str) -> bool:
        """Whether an entry of that tenant and model is meant."""
        return self.tenant in (None, tenant) and self.model in (None, model)


@dataclass(frozen=True, slots=True)
class Found:
    """What a store said: the entry, if it has one, and the stamp without which nothing may be put."""

    value: bytes | None = None
    stamp: bytes | None = None


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge removed."""

    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class StoreState:
    """What a store holds; ``max_bytes`` is ``None`` where somebody else bounds it, ``working`` false while it fails."""

    kind: str
    working: bool
    entries: int
    bytes: int
    max_bytes: int | None


class CacheStore(Protocol):
    """A store. ``get``, ``put`` and ``drop`` never raise and never take long: a failing store is an empty one."""

    async def get(self, key: Key) -> Found:
        """The entry of a key."""
        ...

    async def put(self, key: Key, value: bytes, seconds: float, stamp: bytes) -> bool:
        """Keep an entry; ``False`` when it was too large, purged meanwhile, or the store fails."""
        ...

    async def drop(self, key: Key) -> None:
        """Forget an entry that turned out to be unusable."""
        ...

    async def purge(self, scope: Scope) -> Purged:
        """Forget all entries of a scope. Raises ``StoreError`` when that cannot be promised."""
        ...

    async def state(self) -> StoreState:
        """What is there now."""
        ...

    async def close(self) -> None:
        """Let go."""
        ...
