"""The port of whatever counts rates and calls at once, and its form in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from pagoda.service.limits.account import Account, Ask
from pagoda.service.limits.meter import Decision, Grant, Meter

_TIDY_EVERY = 4096


class MeterStore(Protocol):
    """Exact over all services that share it. ``start`` before use, ``close`` at the end."""

    async def reserve(self, accounts: Sequence[Account], ask: Ask) -> Decision:
        """Let a call in under all accounts or none. Raises ``StoreError`` when nobody can tell."""
        ...

    def settle(self, grant: Grant, used: int) -> None:
        """A call is over and used that many tokens. Never waits, never fails."""
        ...

    def start(self) -> None:
        """Begin to look after the store."""
        ...

    async def close(self) -> None:
        """Let go of the store."""
        ...


class EmbeddedMeter:
    """In this process: nothing is waited for, and nothing outlives it but a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._meter = Meter()
        self._clock = clock
        self._count = 0

    async def reserve(self, accounts: Sequence[Account], ask: Ask) -> Decision:
        """Decide at once."""
        self._count += 1
        now = self._clock()
        if self._count % _TIDY_EVERY == 0:
            self._meter.tidy(now)
        return self._meter.reserve(str(self._count), accounts, ask, now)

    def settle(self, grant: Grant, used: int) -> None:
        """Count what was used."""
        self._meter.settle(grant, used, self._clock())

    def start(self) -> None:
        """Nothing to look after."""

    async def close(self) -> None:
        """Nothing to let go of."""
