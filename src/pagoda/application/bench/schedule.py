"""When requests are due. Pure: no clock, no tasks."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

Arrivals: TypeAlias = Literal["poisson", "constant"]


@dataclass(frozen=True, slots=True)
class Closed:
    """So many clients, each of which asks again as soon as it was answered."""

    concurrency: int

    def __str__(self) -> str:
        return f"{self.concurrency} at once"


@dataclass(frozen=True, slots=True)
class Open:
    """Requests come at a rate (a second), whether or not earlier ones were answered."""

    rate: float
    arrivals: Arrivals = "poisson"

    def __str__(self) -> str:
        return f"{self.rate:g}/s {self.arrivals}"


Load: TypeAlias = Closed | Open


@dataclass(frozen=True, slots=True)
class Length:
    """How long a load is kept: a number of requests, or of seconds in which new ones may begin, or both."""

    requests: int | None = None
    seconds: float | None = None

    def allows(self, number: int, now: float) -> bool:
        """Whether request ``number`` (from 0) may begin ``now`` seconds after the start."""
        if self.requests is not None and number >= self.requests:
            return False
        return self.seconds is None or now < self.seconds


def due_times(load: Open, length: Length, seed: int) -> Iterator[float]:
    """Seconds after the start at which requests are due; the first is due at once when arrivals are constant."""
    draw = random.Random(f"arrivals {seed}")
    now = 0.0
    for number in itertools.count():
        if load.arrivals == "poisson":
            now += draw.expovariate(load.rate)
        else:
            now = number / load.rate
        if not length.allows(number, now):
            return
        yield now
