"""A pool: the replicas under one name, and the choice among them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence

from pagoda.core.errors import Conflict, ModelError, NotFound, Overloaded, Unavailable
from pagoda.core.pool_settings import PoolSettings
from pagoda.model.catalog.entry import ModelEntry
from pagoda.service.routing.budget import RetryBudget
from pagoda.service.routing.policies import KINDS, Policy
from pagoda.service.routing.replica import Replica

NO_REPLICA = "no_replica"
"""Code of the error of a request that no replica can take."""


class ReplicaPool:
    """Several engines under one name. ``ready`` says whether a replica's engine would answer without being started."""

    def __init__(
        self, settings: PoolSettings, entry: ModelEntry, share: float, ready: Callable[[Replica], bool]
    ) -> None:
        self.settings = settings
        self.entry = entry
        self.replicas: dict[str, Replica] = {}
        self.budget = RetryBudget(share, time.monotonic())
        self._policy: Policy = KINDS[settings.policy]()
        self._ready = ready
        self._changed = asyncio.Event()

    @property
    def name(self) -> str:
        """The model name that clients ask for."""
        return self.entry.id

    def add(self, replica: Replica) -> None:
        """A replica joins."""
        if replica.id in self.replicas:
            raise Conflict(f"{self.name} already has a replica {replica.id}; remove it first.", param="id")
        self.replicas[replica.id] = replica
        self.notice()

    def find(self, replica_id: str) -> Replica:
        """The replica of that id. Raises ``NotFound``."""
        if replica_id not in self.replicas:
            there = ", ".join(self.replicas) or "none"
            raise NotFound(f"{self.name} has no replica {replica_id}; there are: {there}.", param="id")
        return self.replicas[replica_id]

    def capacity(self) -> int:
        """Requests that may be under way: those of the usable replicas, or of all when none is (they are then refused
        by the router with the reason, rather than kept in line)."""
        now = time.monotonic()
        usable = sum(replica.capacity for replica in self.replicas.values() if replica.usable(now))
        return usable or max(1, sum(replica.capacity for replica in self.replicas.values()))

    def choose(self, tried: Collection[str], prefix: Sequence[int]) -> Replica | None:
        """The replica for a request, by preference: engines that run, this zone, room left; then by the policy."""
        now = time.monotonic()
        usable = [each for each in self.replicas.values() if each.id not in tried and each.usable(now)]
        if not usable:
            return None
        found = [each for each in usable if self._ready(each)] or usable
        with_room = [each for each in found if each.load.outstanding < each.capacity]
        home = self.settings.zone
        if home and (own := [each for each in with_room if each.zone == home]):
            with_room = own
        loads = [each.load for each in with_room or found]
        return self.replicas[self._policy.choose(loads, prefix).name]

    def notice(self) -> None:
        """Something has changed: who waits for a replica looks again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, tried: Collection[str], prefix: Sequence[int], seconds: float) -> Replica | None:
        """A replica as soon as there is one, within a time."""
        end = time.monotonic() + seconds
        while (found := self.choose(tried, prefix)) is None:
            left = end - time.monotonic()
            if left <= 0:
                return None
            times = [each.breaker.resumes(time.monotonic()) for each in self.replicas.values()]
            soon = min([time_ for time_ in times if time_ > 0], default=left)
            try:
                async with asyncio.timeout(min(left, soon + 0.001)):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return found

    def refusal(self, tried: Collection[str]) -> ModelError:
        """Why nobody can take a request."""
        now = time.monotonic()
        untried = [each for each in self.replicas.values() if each.id not in tried]
        resting = [each for each in untried if each.health == "up" and not each.draining]
        if resting and all(each.breaker.state(now) == "closed" for each in resting):
            seconds = max(min(each.breaker.resumes(now) for each in resting), 0.1)
            said = f"All replicas of {self.name} are full or at rest; ask again in {seconds:.0f} s."
            return Overloaded(said, code="replicas_full", retry_after=seconds)
        why = "; ".join(f"{each.id}: {each.objection(now) or 'failed this request'}" for each in self.replicas.values())
        said = f"{self.name} has no replica that can answer now ({why or 'none is registered'}); ask again later."
        return Unavailable(said, code=NO_REPLICA)
