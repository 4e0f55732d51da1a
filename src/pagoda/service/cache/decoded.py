"""The entries that were hit last as the events they are, so that an answer that many ask for is decoded once.

What the store gives is compared with what was decoded, byte for byte: the store stays the only truth, and an entry that
was purged or replaced is never given again.
"""

from __future__ import annotations

from collections import OrderedDict

from pagoda.service.cache.entry import Entry, decode_entry

_MOST_BYTES = 2**20
"""Of entries as they are kept; decoded, text of one word an event takes some ten times as much."""


class Decoded:
    """Entries by their keys' digests, the one used longest ago first."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most_bytes
        self._entries: OrderedDict[bytes, tuple[bytes, Entry]] = OrderedDict()
        self.bytes = 0

    def entry(self, digest: bytes, raw: bytes) -> Entry:
        """The answer that ``raw`` holds for a key. Raises ``UnusableEntry``."""
        known = self._entries.get(digest)
        if known is not None and known[0] == raw:
            self._entries.move_to_end(digest)
            return known[1]
        entry = decode_entry(digest, raw)
        if known is not None:
            self.bytes -= len(self._entries.pop(digest)[0])
        if len(raw) <= self._most // 8:
            self._entries[digest] = (raw, entry)
            self.bytes += len(raw)
        while self.bytes > self._most:
            self.bytes -= len(self._entries.popitem(last=False)[1][0])
        return entry

    def forget(self) -> None:
        """Keep nothing of what is here."""
        self._entries.clear()
        self.bytes = 0
