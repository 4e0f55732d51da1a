"""One replica of a pool: what is known of it, and the requests that are on it now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, cast

from pagoda.core.errors import ModelError, Unavailable
from pagoda.core.types import Generation
from pagoda.model.catalog.entry import ModelEntry, RemoteAddress
from pagoda.model.engines.openai import STOPPED
from pagoda.service.routing.breaker import Breaker
from pagoda.service.routing.fault import REFUSED_SECONDS, Outcome, outcome_of, rest_after
from pagoda.service.routing.policies import Load
from pagoda.service.routing.prefix import length_of
from pagoda.service.routing.pulse import Pulse

T = TypeVar("T")

Origin: TypeAlias = Literal["settings", "dns", "api"]
Health: TypeAlias = Literal["up", "dead", "wedged"]


@dataclass(eq=False, slots=True)
class Attempt:
    """A request on its replica."""

    replica: Replica
    probe: bool
    request: Generation | None = None
    heard: bool = False
    """Whether any text has come, so that the prompt was read."""
    severed: bool = False
    """Whether the replica was lost meanwhile."""
    _waiting: asyncio.Task[Any] | None = None
    """The task that waits for the engine now."""

    async def hear(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the engine and wait. Raises ``Unavailable`` when the replica is lost meanwhile.

        What waits is cancelled then, as ``asyncio.timeout`` does it: a timer's scope for each token would cost more
        than all else that is done with one.
        """
        if self.severed:
            raise self._lost()
        task = self._waiting = cast("asyncio.Task[Any]", asyncio.current_task())
        others = task.cancelling()
        try:
            return await ask()
        except asyncio.CancelledError as cancelled:
            if self._cut_off(task, others):
                raise self._lost() from cancelled
            raise
        finally:
            self._waiting = None

    def sever(self) -> None:
        """End the wait for a replica that will not answer."""
        task, self._waiting, self.severed = self._waiting, None, True
        if task is not None:
            task.cancel()

    def _cut_off(self, task: asyncio.Task[Any], others: int) -> bool:
        """Whether ``sever`` alone, and nobody else, has cancelled the task's wait."""
        return self.severed and self._waiting is None and task.uncancel() <= others

    def _lost(self) -> Unavailable:
        return Unavailable(f"{self.replica.id} has stopped answering ({self.replica.health}).", code=STOPPED)


class Replica:
    """One engine of a pool."""

    def __init__(
        self, *, id: str, entry: ModelEntry, weight: float, zone: str, origin: Origin, breaker: Breaker, pulse: Pulse
    ) -> None:
        self.id = id
        self.entry = entry
        self.zone = zone
        self.origin: Origin = origin
        self.breaker = breaker
        self.pulse = pulse
        self.load = Load(id, weight)
        self.capacity = 1
        self.draining = False
        self.health: Health = "up"
        self.reason = ""
        """Why it is not up."""
        self.attempts: set[Attempt] = set()
        self.outcomes: dict[Outcome, int] = {}
        self.progress: int | None = None
        """The engine's counter of work when it last told it."""
        self.counted = True
        """Whether it tells of its work at all."""
        self.answered = 0.0
        """When it last answered a question after its health."""

    @property
    def local(self) -> bool:
        """Whether its engine is a process of this machine."""
        return not isinstance(self.entry.source, RemoteAddress)

    @property
    def url(self) -> str:
        """Its address; empty for an engine of this machine."""
        return self.entry.source.url if isinstance(self.entry.source, RemoteAddress) else ""

    def usable(self, now: float) -> bool:
        """Whether new requests may go there."""
        return self.health == "up" and not self.draining and self.breaker.allows(now)

    def objection(self, now: float) -> str:
        """Why it is not usable, in words; empty when it is."""
        if self.draining:
            return "draining"
        if self.health != "up":
            return f"{self.health} ({self.reason})" if self.reason else self.health
        if not self.breaker.allows(now):
            seconds = self.breaker.resumes(now)
            if self.breaker.state(now) == "closed":
                return f"{self.breaker.resting_for} for another {seconds:.1f} s"
            return f"its circuit is {self.breaker.state(now).replace('_', ' ')} after a {self.breaker.reason}"
        return ""

    def unread(self) -> int:
        """The length of the longest prompt that it has not shown to have read, characters or tokens."""
        silent = (each.request for each in self.attempts if each.request is not None and not each.heard)
        return max((length_of(request) for request in silent), default=0)

    def begin(self, request: Generation | None = None) -> Attempt:
        """A request is sent there."""
        now = time.monotonic()
        if not self.attempts:
            self.pulse.rest(now)
        attempt = Attempt(self, self.breaker.begin(now), request)
        self.attempts.add(attempt)
        self.load.outstanding += 1
        return attempt

    def end(self, attempt: Attempt, error: ModelError | None, *, ended: bool = True) -> Outcome:
        """The request is over; ``ended`` is false where its client left. Gives what that says of the replica."""
        now = time.monotonic()
        self.attempts.discard(attempt)
        self.load.outstanding -= 1
        outcome: Outcome = "cancelled" if not ended else "ok" if error is None else outcome_of(error)
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if outcome in ("ok", "client"):
            self.breaker.succeed(attempt.probe)
        elif outcome == "cancelled":
            self.breaker.abandon(attempt.probe)
        elif outcome == "overload" and error is not None:
            self.breaker.rest(rest_after(error), now, attempt.probe)
        elif outcome == "refused":
            self.breaker.rest(REFUSED_SECONDS, now, attempt.probe, f"left alone ({error})")
        elif outcome in ("death", "timeout", "failure"):
            self.breaker.fail(outcome, now, attempt.probe)
        return outcome

    def sink(self, health: Health, reason: str) -> None:
        """It has left the pool by its health: what waits for it waits no longer."""
        self.health, self.reason = health, reason
        for attempt in list(self.attempts):
            attempt.sever()

    def rise(self, *, trusted: bool = True) -> None:
        """It is back; unless that is ``trusted`` its circuit stays as it is, and a request will probe it."""
        self.health, self.reason = "up", ""
        if trusted:
            self.breaker.reset()
