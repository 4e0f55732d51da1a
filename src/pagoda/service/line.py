"""Who is served next at one model: a bounded line with priorities, fair between tenants. No clock, no tasks.

- *Priority* is a number, smaller is sooner (``pagoda.core.types.PRIORITIES``). Waiting makes everyone more urgent: ten
  points (one class) for every ``aging_seconds``, so that steady urgent work delays the rest but never starves it.
- Inside a priority *tenants* share by slot-seconds used, whoever has used least comes first (start-time fair queueing,
  Goyal, Vin and Cheng 1996): what a request will take is guessed when it is admitted and corrected when it ends.
- A *full* line gives its place to those it owes one: the newest request of the least urgent priority, of the tenant
  that waits with most, leaves for a more urgent request or for a tenant that waits with fewer.
- Who would *wait* past a deadline, by the present rate, is refused at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

CLASS = 10
"""Points between interactive, normal and batch."""
_WEIGHT = 0.1
_MOST_TENANTS = 1024
_SHORTEST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 1.0, 600.0

Refusal: TypeAlias = Literal["full", "displaced", "wait", "deadline"]


@dataclass(slots=True, eq=False)
class Waiter:
    """A request in line, or admitted."""

    tenant: str
    priority: int
    cost: int = 1
    """Slots it takes."""
    since: float = 0.0
    """When it came; when it was admitted, once it is."""
    limit: float | None = None
    """When its client has no more use for an answer."""
    charged: float = 0.0
    place: Literal["outside", "line", "admitted"] = "outside"


@dataclass(frozen=True, slots=True)
class Turn:
    """What an event leads to: who is admitted now, who must leave the line and why."""

    admitted: tuple[Waiter, ...] = ()
    refused: tuple[tuple[Waiter, Refusal], ...] = ()


_STILL = Turn()


class Line:
    """The line before one engine of ``capacity`` slots, at most ``limit`` long."""

    def __init__(self, capacity: int, limit: int, *, wait_seconds: float = 0.0, aging_seconds: float = 60.0) -> None:
        self.capacity = capacity
        self.free = capacity
        self.waiting = 0
        self.slot_seconds: float | None = None
        """What a request has lately taken, per slot; ``None`` before the first has ended."""
        self._limit = limit
        self._wait_seconds = wait_seconds
        self._aging_seconds = aging_seconds
        self._classes: dict[int, dict[str, deque[Waiter]]] = {}
        self._used: dict[str, float] = {}
        self._level = 0.0

    def arrive(self, waiter: Waiter, now: float) -> Turn:
        """A request comes: admitted, in line, or refused; perhaps in another's place."""
        waiter.cost = min(waiter.cost, self.capacity)
        waiter.since = now
        if not self.waiting and waiter.cost <= self.free:
            return Turn(admitted=(self._admit(waiter, now),))
        expected = self.expected_wait(waiter, now)
        if waiter.limit is not None and now + expected >= waiter.limit:
            return Turn(refused=((waiter, "deadline"),))
        if self._wait_seconds and waiter.priority < 2 * CLASS and expected > self._wait_seconds:
            return Turn(refused=((waiter, "wait"),))
        refused: tuple[tuple[Waiter, Refusal], ...] = ()
        if self.waiting >= self._limit:
            loser = self._loser_to(waiter)
            if loser is None:
                return Turn(refused=((waiter, "full"),))
            self.leave(loser)
            refused = ((loser, "displaced"),)
        self._classes.setdefault(waiter.priority, {}).setdefault(waiter.tenant, deque()).append(waiter)
        waiter.place = "line"
        self.waiting += 1
        return Turn(admitted=tuple(self._advance(now)), refused=refused)

    def leave(self, waiter: Waiter) -> None:
        """A request in line goes away."""
        tenants = self._classes[waiter.priority]
        tenants[waiter.tenant].remove(waiter)
        waiter.place = "outside"
        self.waiting -= 1
        if not tenants[waiter.tenant]:
            del tenants[waiter.tenant]
        if not tenants:
            del self._classes[waiter.priority]

    def done(self, waiter: Waiter, now: float, *, counts: bool = True) -> Turn:
        """An admitted request has ended; ``counts`` unless its time says nothing about others' (it failed at once)."""
        self.free += waiter.cost
        waiter.place = "outside"
        took = now - waiter.since
        if counts:
            last = self.slot_seconds
            self.slot_seconds = took if last is None else last + _WEIGHT * (took - last)
        self._used[waiter.tenant] = self._used.get(waiter.tenant, self._level) + took * waiter.cost - waiter.charged
        turn = Turn(admitted=tuple(self._advance(now))) if self.waiting else _STILL
        self._forget_idle()
        return turn

    def begin(self, waiter: Waiter, now: float) -> None:
        """An admitted request is computed only from now on (its model had to be loaded first)."""
        waiter.since = now

    def advance(self, now: float) -> Turn:
        """Room may have come by someone's leaving."""
        return Turn(admitted=tuple(self._advance(now)))

    def resize(self, capacity: int, now: float) -> Turn:
        """The engine has become able to do more, or less; those admitted before stay so."""
        self.free += capacity - self.capacity
        self.capacity = capacity
        for tenants in self._classes.values():
            for queue in tenants.values():
                for waiter in queue:
                    waiter.cost = min(waiter.cost, capacity)
        return self.advance(now)

    def depths(self) -> dict[int, int]:
        """Requests in line by priority."""
        return {priority: sum(map(len, tenants.values())) for priority, tenants in self._classes.items()}

    def expected_wait(self, waiter: Waiter, now: float) -> float:
        """Seconds until a request that comes now would be admitted, at the present rate."""
        if self.slot_seconds is None:
            return 0.0
        urgency = self._urgency(waiter, now)
        ahead = 1
        for tenants in self._classes.values():
            own = sum(each.cost for each in tenants.get(waiter.tenant, ()) if self._urgency(each, now) <= urgency)
            for tenant, queue in tenants.items():
                before = sum(each.cost for each in queue if self._urgency(each, now) <= urgency)
                peers = next(iter(queue)).priority == waiter.priority
                ahead += min(before, own + waiter.cost) if peers and tenant != waiter.tenant else before
        return ahead * self.slot_seconds / self.capacity

    def retry_after(self) -> float:
        """Seconds after which asking again has a chance: the time the whole line takes at the present rate."""
        queued = sum(each.cost for tenants in self._classes.values() for queue in tenants.values() for each in queue)
        seconds = (queued + 1) * (self.slot_seconds or 0.0) / self.capacity
        return min(max(seconds, _SHORTEST_RETRY_SECONDS), _LONGEST_RETRY_SECONDS)

    def _advance(self, now: float) -> Iterator[Waiter]:
        """Admit the next ones while there is room. A request for several slots is not overtaken meanwhile."""
        while (waiter := self._next(now)) is not None and waiter.cost <= self.free:
            self.leave(waiter)
            yield self._admit(waiter, now)

    def _next(self, now: float) -> Waiter | None:
        best: tuple[float, float, float] | None = None
        chosen = None
        for tenants in self._classes.values():
            for tenant, queue in tenants.items():
                rank = (self._urgency(queue[0], now), self._used.get(tenant, self._level), queue[0].since)
                if best is None or rank < best:
                    best, chosen = rank, queue[0]
        return chosen

    def _urgency(self, waiter: Waiter, now: float) -> float:
        """Its priority, better by one class for each full time of aging."""
        aged = CLASS * int((now - waiter.since) / self._aging_seconds) if self._aging_seconds else 0
        return waiter.priority - aged

    def _admit(self, waiter: Waiter, now: float) -> Waiter:
        used = max(self._used.get(waiter.tenant, self._level), self._level)
        self._level = used
        waiter.charged = (self.slot_seconds or 0.0) * waiter.cost
        self._used[waiter.tenant] = used + waiter.charged
        waiter.since, waiter.place = now, "admitted"
        self.free -= waiter.cost
        return waiter

    def _loser_to(self, waiter: Waiter) -> Waiter | None:
        """Who gives up a place of the full line to a newcomer; ``None`` when the newcomer has no better right."""
        worst = max(self._classes)
        tenants = self._classes[worst]
        longest = max(tenants.values(), key=len)
        own = len(tenants.get(waiter.tenant, ()))
        if waiter.priority < worst or (waiter.priority == worst and own + 1 < len(longest)):
            return longest[-1]
        return None

    def _forget_idle(self) -> None:
        """Tenants that have used no more than a newcomer is taken to have need no record. Over so many records the
        level rises to their middle, and of an idle engine nobody has used anything."""
        if self.free == self.capacity and not self.waiting:
            self._used.clear()
            self._level = 0.0
            return
        if len(self._used) > _MOST_TENANTS:
            self._level = max(self._level, sorted(self._used.values())[len(self._used) // 2])
        busy = {tenant for tenants in self._classes.values() for tenant in tenants}
        for tenant in [t for t, used in self._used.items() if used <= self._level and t not in busy]:
            del self._used[tenant]
