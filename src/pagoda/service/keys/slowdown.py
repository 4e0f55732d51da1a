"""Slowing down those who try keys: per address, ever longer, and never for long."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

_FREE = 5  # wrong keys that cost nothing: people mistype, and programs are started with yesterday's key
_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 30.0  # somebody else behind the same address must not be kept out for long
_FORGOTTEN_SECONDS = 600.0
_MOST_ADDRESSES = 10_000
_IPV6_NETWORK = 64  # one customer of a provider has that many addresses


class Slowdown:
    """Counts wrong keys by address. A key in memory is let in without asking here, so only strangers wait."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Seconds until this address may try a key again; 0: now."""
        failures, last = self._failures.get(_group(address), (0, 0.0))
        if failures < _FREE:
            return 0.0
        pause = min(_FIRST_SECONDS * 2.0 ** min(failures - _FREE, 10), _LONGEST_SECONDS)
        return max(0.0, last + pause - self._clock())

    def failed(self, address: str) -> int:
        """Note a wrong key; gives how many there were."""
        group, now = _group(address), self._clock()
        failures, last = self._failures.pop(group, (0, now))
        failures = 1 if now - last > _FORGOTTEN_SECONDS else failures + 1
        self._failures[group] = (failures, now)
        while len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)
        return failures

    def __len__(self) -> int:
        return len(self._failures)


def _group(address: str) -> str:
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network(f"{address.partition('%')[0]}/{_IPV6_NETWORK}", strict=False))
    except ValueError:
        return address
