"""The store inside the service process: least recently used goes first, bounded in bytes that are really used."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from pagoda.service.cache.store import Found, Key, Purged, Scope, StoreState

ENTRY_OVERHEAD = 320
"""Bytes an entry costs beside its value: key, expiry, place in the order (measured: benchmarks/cache.py)."""
_PURGE_STEP = 5_000  # entries looked at before other requests get their turn
_REMEMBERED_PURGES = 1_000


@dataclass(slots=True)
class _Entry:
    value: bytes
    ends: float
    tenant: str
    model: str

    @property
    def size(self) -> int:
        return len(self.value) + ENTRY_OVERHEAD


class EmbeddedStore:
    """Entries in a dictionary; ``evicted`` is told of each that had to make room."""

    def __init__(
        self,
        max_bytes: int,
        max_entry_bytes: int,
        evicted: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._max_entry_bytes = min(max_entry_bytes, max_bytes)
        self._evicted = evicted
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._count = 0
        self._purges: deque[tuple[int, Scope]] = deque(maxlen=_REMEMBERED_PURGES)

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: Key) -> Found:
        """The entry, which is thereby the last to go."""
        stamp = self._count.to_bytes(8)
        entry = self._entries.get(key.digest)
        if entry is None:
            return Found(None, stamp)
        if entry.ends <= self._clock():
            self._remove(key.digest)
            return Found(None, stamp)
        self._entries.move_to_end(key.digest)
        return Found(entry.value, stamp)

    async def put(self, key: Key, value: bytes, seconds: float, stamp: bytes) -> bool:
        """Keep it, and let the least recently used make room."""
        entry = _Entry(value, self._clock() + seconds, sys.intern(key.tenant), sys.intern(key.model))
        if entry.size > self._max_entry_bytes or self._purged_since(int.from_bytes(stamp), key):
            return False
        if key.digest in self._entries:
            self._remove(key.digest)
        self._entries[key.digest] = entry
        self.bytes += entry.size
        while self.bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))
            self._evicted()
        return True

    async def drop(self, key: Key) -> None:
        """Forget it."""
        if key.digest in self._entries:
            self._remove(key.digest)

    async def purge(self, scope: Scope) -> Purged:
        """Look at every entry, with pauses for others."""
        self._count += 1
        self._purges.append((self._count, scope))
        entries = size = 0
        for number, digest in enumerate(list(self._entries)):
            entry = self._entries.get(digest)
            if entry is not None and scope.covers(entry.tenant, entry.model):
                entries, size = entries + 1, size + entry.size
                self._remove(digest)
            if number % _PURGE_STEP == _PURGE_STEP - 1:
                await asyncio.sleep(0)
        return Purged(entries, size)

    async def state(self) -> StoreState:
        """Counts of this process."""
        return StoreState("embedded", True, len(self._entries), self.bytes, self._max_bytes)

    async def close(self) -> None:
        """Nothing outlives the process."""

    def _purged_since(self, count: int, key: Key) -> bool:
        if self._purges and count + 1 < self._purges[0][0]:
            return True  # older than what is remembered: it may have been meant
        return any(number > count and scope.covers(key.tenant, key.model) for number, scope in self._purges)

    def _remove(self, digest: bytes) -> None:
        self.bytes -= self._entries.pop(digest).size
