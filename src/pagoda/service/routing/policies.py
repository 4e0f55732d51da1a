"""How a replica is chosen among the usable ones. Pure rules over ``Load``; the caller keeps the counts.

All take weights into account: a replica of weight 2 is as busy with two requests as one of weight 1 with one.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil
from types import TracebackType
from typing import Protocol
from zlib import crc32

BOUND = 1.25
"""How much more than its fair share a replica may have before requests leave it in spite of their prefix."""
_POINTS = 64
_MOST_PREFIXES = 65_536


@dataclass(slots=True)
class Load:
    """A replica as the policies see it; a block is a request on it."""

    name: str
    weight: float = 1.0
    outstanding: int = 0

    @property
    def busyness(self) -> float:
        """What it would have to do, in relation to its weight, with one request more."""
        return (self.outstanding + 1) / self.weight

    def __enter__(self) -> None:
        self.outstanding += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.outstanding -= 1


class Policy(Protocol):
    """A way to choose."""

    def choose(self, loads: Sequence[Load], prefix: Sequence[int]) -> Load:
        """One of ``loads`` (never empty) for a request whose leading blocks have these hashes."""
        ...


class RoundRobin:
    """Each in turn, smoothly by weight: no replica gets its share in one lump."""

    def __init__(self) -> None:
        self._credit: dict[str, float] = {}

    def choose(self, loads: Sequence[Load], prefix: Sequence[int]) -> Load:
        """The one that is owed most."""
        del prefix
        credit = {load.name: self._credit.get(load.name, 0.0) + load.weight for load in loads}
        best = max(loads, key=lambda load: credit[load.name])
        credit[best.name] -= sum(load.weight for load in loads)
        self._credit = credit
        return best


class LeastOutstanding:
    """The least busy; among equals each in turn."""

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, loads: Sequence[Load], prefix: Sequence[int]) -> Load:
        """The least busy."""
        del prefix
        self._turn += 1
        least = min(load.busyness for load in loads)
        equal = [load for load in loads if load.busyness == least]
        return equal[self._turn % len(equal)]


class PowerOfTwo:
    """The less busy of two that are drawn by weight: near the best without everybody running to the same one."""

    def __init__(self, draw: random.Random | None = None) -> None:
        self._draw = draw or random.Random()

    def choose(self, loads: Sequence[Load], prefix: Sequence[int]) -> Load:
        """The less busy of two."""
        del prefix
        if len(loads) == 1:
            return loads[0]
        first = self._draw.choices(range(len(loads)), [load.weight for load in loads])[0]
        second = self._draw.randrange(len(loads) - 1)
        second += second >= first
        return min(loads[first], loads[second], key=lambda load: load.busyness)


class PrefixAffinity:
    """Where the longest known beginning of the prompt was last served, within a bounded load.

    A beginning that nobody has served goes where a ring of hashes says, which moves few of them when replicas join or
    leave. Either way a replica with over ``BOUND`` times its fair share is passed over: a lost cache costs one prompt,
    a queue costs everybody in it.
    """

    def __init__(self) -> None:
        self._served: OrderedDict[int, str] = OrderedDict()
        self._ring: list[tuple[int, str]] = []
        self._members: tuple[tuple[str, float], ...] = ()

    def choose(self, loads: Sequence[Load], prefix: Sequence[int]) -> Load:
        """By affinity where the load allows, else the least busy."""
        by_name = {load.name: load for load in loads}
        total = sum(load.outstanding for load in loads) + 1
        weight = sum(load.weight for load in loads)

        def fits(load: Load) -> bool:
            return load.outstanding < ceil(BOUND * total * load.weight / weight)  # whole requests: 2 of 2 may be one's

        chosen = None
        for block in reversed(prefix):
            known = by_name.get(self._served.get(block, ""))
            if known is not None:
                chosen = known if fits(known) else None
                break
        else:
            if prefix:
                chosen = next(
                    (by_name[name] for name in self._clockwise(loads, prefix[0]) if fits(by_name[name])), None
                )
        if chosen is None:
            chosen = min(loads, key=lambda load: load.busyness)
        for block in prefix:
            self._served[block] = chosen.name
            self._served.move_to_end(block)
        while len(self._served) > _MOST_PREFIXES:
            self._served.popitem(last=False)
        return chosen

    def _clockwise(self, loads: Sequence[Load], block: int) -> Iterator[str]:
        """The names in the order in which the ring offers them."""
        members = tuple(sorted((load.name, load.weight) for load in loads))
        if members != self._members:
            self._members = members
            self._ring = sorted(
                (crc32(f"{name}/{point}".encode()), name)
                for name, weight in members
                for point in range(max(1, round(_POINTS * weight)))
            )
        start = bisect(self._ring, (block, ""))
        offered: set[str] = set()  # the first is nearly always taken, so the rest of the ring is not walked
        for place in chain(range(start, len(self._ring)), range(start)):
            name = self._ring[place][1]
            if name not in offered:
                offered.add(name)
                yield name


KINDS: dict[str, Callable[[], Policy]] = {
    "round_robin": RoundRobin,
    "least_outstanding": LeastOutstanding,
    "power_of_two": PowerOfTwo,
    "prefix_affinity": PrefixAffinity,
}
