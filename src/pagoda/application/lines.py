"""Lines on their way to a file: gathered on the event loop, written by a thread, so that a slow reader stops nobody."""

from __future__ import annotations

import asyncio
import os
import queue
import threading

_GATHER_SECONDS = 0.1
_MOST_PARCELS = 100
"""Parcels of lines that wait for a reader that does not read; further ones are dropped, and counted in words."""


class Lines:
    """The writer of one file descriptor. Made on the loop's thread; closed when the loop is done with it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._gathered: list[bytes] = []
        self._parcels: queue.Queue[bytes | None] = queue.Queue(_MOST_PARCELS)
        self._dropped = 0
        self._thread = threading.Thread(target=self._work, name="lines", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Have a line written soon."""
        if not self._gathered:
            asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._send)
        self._gathered.append(line)

    def close(self, seconds: float = 1.0) -> None:
        """Write what is left, for as long as that takes at most."""
        self._send()
        try:
            self._parcels.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)

    def _send(self) -> None:
        lines, self._gathered = self._gathered, []
        if not lines:
            return
        told = f"{self._dropped} lines of requests were dropped: nobody reads them\n".encode() if self._dropped else b""
        try:
            self._parcels.put_nowait(told + b"".join(lines))
            self._dropped = 0
        except queue.Full:
            self._dropped += len(lines)

    def _work(self) -> None:
        while (parcel := self._parcels.get()) is not None:
            rest = memoryview(parcel)
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except OSError:  # whoever read it is gone; the service goes on without a log
                    break
