"""One request's way over the replicas of its pool: who is next, how often, and when to give up."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

from pagoda.core.errors import ModelError
from pagoda.core.settings import Routing
from pagoda.service.routing.fault import Outcome
from pagoda.service.routing.pool import ReplicaPool
from pagoda.service.routing.replica import Replica

_LONGEST_BACKOFF_SECONDS = 2.0


class Trip:
    """A request never comes to a replica twice, and to no more than the settings say."""

    def __init__(self, pool: ReplicaPool, settings: Routing, prefix: Sequence[int]) -> None:
        self._pool = pool
        self._settings = settings
        self._prefix = prefix
        self._tried: list[str] = []
        self._failure: ModelError | None = None
        self._outcome: Outcome = "ok"
        pool.budget.earn()

    @property
    def retries(self) -> bool:
        """Whether a replica has failed this request already."""
        return self._failure is not None

    async def next(self) -> Replica:
        """The replica to ask. Raises why there is none: the last failure, or the pool's refusal."""
        if self._failure is not None:
            await self._hesitate(self._failure)
        replica = self._pool.choose(self._tried, self._prefix)
        if replica is None and (wait := self._pool.settings.wait_seconds):
            replica = await self._pool.wait(self._tried, self._prefix, wait)
        if replica is None:
            raise self._pool.refusal(self._tried) from self._failure
        self._tried.append(replica.id)
        return replica

    def failed(self, error: ModelError, outcome: Outcome, *, spoken: bool) -> None:
        """A replica failed. Raises the error where another must not be asked.

        The budget holds for what could multiply trouble. It does not for a replica that died, which each request on it
        meets once, nor for an answer that has begun, which would be lost.
        """
        self._failure, self._outcome = error, outcome
        if outcome in ("client", "cancelled") or len(self._tried) >= self._settings.attempts:
            raise error
        free = spoken or outcome == "death"
        if not free and not self._pool.budget.spend(time.monotonic()):
            raise error

    async def _hesitate(self, failure: ModelError) -> None:
        """A random wait before a retry, longer each time; none after a death, which is nobody's overload."""
        del failure
        if self._outcome == "death":
            return
        longest = self._settings.backoff_seconds * 2 ** (len(self._tried) - 1)
        await asyncio.sleep(random.uniform(0, min(longest, _LONGEST_BACKOFF_SECONDS)))
