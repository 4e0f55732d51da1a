"""Rates and concurrency in Redis, exact over all services that share it, over its restarts too.

Redis's memory is an epoch. When it is lost (a restart, FLUSHALL), the first service to notice begins a new one; until
all services that the ledger knows to live have announced their calls of the last minute, nothing is granted. Each one
therefore keeps a copy of its own grants (``Meter``). A request waits at most ``seconds`` for Redis; the first failure
is remembered until a look in the background finds Redis well, and meanwhile the operator's choice holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from pagoda.core.errors import StoreError
from pagoda.core.types import new_id
from pagoda.service.limits import redis_scripts as scripts
from pagoda.service.limits.account import Account, Ask, Refusal, Standing
from pagoda.service.limits.meter import WINDOW, Decision, Grant, Meter
from pagoda.service.limits.metrics import LimitMetrics
from pagoda.service.redis_client import open_redis

logger = logging.getLogger(__name__)

_PREFIX = "pagoda:{limits}:"
_EPOCH = [_PREFIX + name for name in ("epoch", "gate", "expected", "announced", "began")]
_LOOK_SECONDS = 0.25
_PATIENT_SECONDS = 5.0
"""For what no request waits for."""
_FAREWELL_SECONDS = 1.0
_BATCH = 200
_CONNECTIONS = 32
_MOST_CONNECTIONS = 10_000
"""The client refuses beyond its own bound where ours waits."""
_NEVER_WAS = -1


@dataclass(frozen=True, slots=True)
class Sharing:
    """How this service shares Redis with the others."""

    name: str
    peers: Callable[[], Awaitable[list[str]]]
    """The services that live, by the ledger. Raises ``StoreError``."""
    seconds: float
    lease: float
    when_gone: str


class RedisMeter:
    """``MeterStore`` in Redis."""

    def __init__(
        self, url: str, sharing: Sharing, metrics: LimitMetrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sharing = sharing
        self._metrics = metrics
        self._clock = clock
        self._own = Meter()
        self._epoch = ""
        self._open = asyncio.Event()
        """Set while Redis is well and grants."""
        self._settled: deque[tuple[Grant, int]] = deque()
        self._wake = asyncio.Event()
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        self._tasks: list[asyncio.Task[None]] = []
        self._renewed = 0.0
        self._count = 0
        self._redis = open_redis(url, "limits.redis_url", max_connections=_MOST_CONNECTIONS)
        names = ("RESERVE", "SETTLE", "RENEW", "BEGIN", "ENTER", "READY")
        self._scripts: dict[str, Any] = {name: self._redis.register_script(getattr(scripts, name)) for name in names}
        metrics.working.labels("redis").set(0)

    async def reserve(self, accounts: Sequence[Account], ask: Ask) -> Decision:
        """Let a call in under all accounts or none. Raises ``StoreError`` when Redis cannot tell and that refuses."""
        self._begin()
        if not self._open.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._sharing.seconds):
                    await self._open.wait()
        self._count += 1
        grant_id = f"{int(ask.counts)}:{self._sharing.name}:{self._count}"
        if not self._open.is_set():
            return self._without_redis(grant_id, accounts, ask)
        keys = [*_EPOCH[:2], *_keys(accounts)]
        limits = [
            -1 if bound is None else bound
            for account in accounts
            for bound in (
                account.limits.requests_per_minute,
                account.limits.tokens_per_minute,
                account.limits.concurrent,
            )
        ]
        lease = int(self._sharing.lease * 1000)
        arguments = [self._epoch, grant_id, ask.least, ask.most, lease, *limits]
        answer = None
        try:
            async with self._bounded(self._sharing.seconds):
                answer = await self._scripts["RESERVE"](keys=keys, args=arguments)
        except StoreError as error:
            self._give_up(error)
            return self._without_redis(f"{grant_id}+", accounts, ask)
        finally:
            if answer is None:  # nobody knows whether Redis has heard it
                self._forget(grant_id, accounts, ask)
        said = answer[0].decode()
        if said in ("epoch", "wait"):
            self._lost()
            return self._without_redis(grant_id, accounts, ask)
        if said == "no":
            return _refusal(accounts, ask, answer)
        grant = self._own.record(grant_id, accounts, Ask(ask.least, answer[1], ask.counts), self._clock())
        grant.standing = _standing(accounts, answer[2:], grant)
        return grant

    def settle(self, grant: Grant, used: int) -> None:
        """Count what was used; told to Redis in a moment."""
        self._own.settle(grant, used, self._clock())
        self._settled.append((grant, used))
        self._wake.set()

    async def close(self) -> None:
        """Tell Redis what is settled, if it listens, and let go of it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(StoreError):  # it may be away; what is open there expires
            await self._tell()
        with contextlib.suppress(RedisError, OSError, TimeoutError):  # a connection's own end has no limit
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._redis.aclose()

    def start(self) -> None:
        """Find Redis before anybody asks."""
        self._begin()

    def _begin(self) -> None:
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._look_after()), asyncio.create_task(self._tell_on())]

    def _without_redis(self, grant_id: str, accounts: Sequence[Account], ask: Ask) -> Decision:
        if self._sharing.when_gone == "allow":
            return self._own.reserve(grant_id, accounts, ask, self._clock())
        raise StoreError(
            "Redis, which counts what keys use, cannot be asked now; ask again in a second.",
            code="limits_unavailable",
            retryable=True,
        )

    def _forget(self, grant_id: str, accounts: Sequence[Account], ask: Ask) -> None:
        doubtful = Grant(grant_id, self._clock(), 0.0, ask)
        doubtful.accounts = tuple(accounts)
        self._settled.append((doubtful, _NEVER_WAS))
        self._wake.set()

    async def _look_after(self) -> None:
        """See that this service is part of Redis's present epoch, and that its calls under way do not expire."""
        while True:
            try:
                if not self._open.is_set():
                    await self._redis.connection_pool.disconnect()  # what a broken connection still holds is nobody's
                    await self._join()
                else:
                    async with self._bounded(self._sharing.seconds * 4):
                        epoch, gate = await self._redis.mget(_EPOCH[:2])
                    if epoch is None or epoch.decode() != self._epoch or gate is None:
                        self._lost()
                        continue
                    await self._renew()
                self._own.tidy(self._clock())
            except StoreError as error:
                self._give_up(error)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _join(self) -> None:
        """Announce what this service let in, and open when all others have too."""
        async with self._bounded(self._sharing.seconds * 4):
            present = await self._redis.get(_EPOCH[0])
        peers = [] if present is not None else await self._sharing.peers()
        async with self._bounded(_PATIENT_SECONDS):
            name = self._sharing.name
            answer = await self._scripts["BEGIN"](keys=_EPOCH, args=[new_id("epoch"), name, *peers])
            epoch = answer.decode()
            if epoch != self._epoch:
                await self._announce(epoch)
                self._epoch = epoch
            ready = await self._scripts["READY"](keys=_EPOCH, args=[epoch, name])
        if ready == 1:
            self._open.set()
            self._metrics.working.labels("redis").set(1)
            self._wake.set()
        elif ready < 0:
            self._epoch = ""

    async def _announce(self, epoch: str) -> None:
        now, lease = self._clock(), int(self._sharing.lease * 1000)
        grants = self._own.recent(now)
        for first in range(0, len(grants), _BATCH):
            pipe = self._redis.pipeline(transaction=False)
            for grant in grants[first : first + _BATCH]:
                age = int((now - grant.at) * 1000)
                arguments = [epoch, grant.id, age, grant.tokens, lease if grant.open else 0]
                await self._scripts["ENTER"](keys=[_EPOCH[0], *_keys(grant.accounts)], args=arguments, client=pipe)
            await pipe.execute()

    async def _renew(self) -> None:
        if self._clock() - self._renewed < self._sharing.lease / 4:
            return
        lease = int(self._sharing.lease * 1000)
        grants = list(self._own.grants.values())
        async with self._bounded(_PATIENT_SECONDS):
            for first in range(0, len(grants), _BATCH):
                pipe = self._redis.pipeline(transaction=False)
                for grant in grants[first : first + _BATCH]:
                    keys = [_EPOCH[0], *(_names(account)[3] for account in grant.accounts)]
                    await self._scripts["RENEW"](keys=keys, args=[self._epoch, grant.id, lease], client=pipe)
                await pipe.execute()
        self._renewed = self._clock()

    async def _tell_on(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._open.wait()
            try:
                await self._tell()
            except StoreError as error:
                self._give_up(error)
                self._wake.set()

    async def _tell(self) -> None:
        """Tell Redis what calls have used; what it did not take is told again, twice is once."""
        while self._settled:
            part = list(self._settled)[:_BATCH]
            async with self._bounded(_PATIENT_SECONDS):
                pipe = self._redis.pipeline(transaction=False)
                for grant, used in part:
                    keys = [_EPOCH[0], *_keys(grant.accounts)]
                    await self._scripts["SETTLE"](keys=keys, args=[self._epoch, grant.id, used], client=pipe)
                await pipe.execute()
            for _ in part:
                self._settled.popleft()

    def _lost(self) -> None:
        self._open.clear()

    def _give_up(self, error: StoreError) -> None:
        """Leave Redis alone until it is well again."""
        self._metrics.failures.labels("redis", error.code).inc()
        if self._open.is_set():
            logger.warning("%s Limits: %s until it is back.", error.message, self._sharing.when_gone)
        self._metrics.working.labels("redis").set(0)
        self._epoch = ""  # what is let in without Redis is announced to it later
        self._open.clear()

    @asynccontextmanager
    async def _bounded(self, seconds: float) -> AsyncIterator[None]:
        """Redis's own errors, and its silence, as ``StoreError``."""
        try:
            async with asyncio.timeout(seconds), self._turns:
                yield
        except TimeoutError as error:
            raise StoreError(f"Redis did not answer within {seconds:g} s.", code="timeout", retryable=True) from error
        except (RedisError, OSError) as error:
            raise StoreError(f"Redis failed: {error}.", code="failed", retryable=True) from error


def _names(account: Account) -> list[str]:
    return [f"{_PREFIX}{what}:{account.id}" for what in ("log", "tok", "sum", "open")]


def _keys(accounts: Sequence[Account]) -> list[str]:
    return [name for account in accounts for name in _names(account)]


def _refusal(accounts: Sequence[Account], ask: Ask, answer: Sequence[Any]) -> Refusal:
    account, limit = accounts[answer[1]], answer[2].decode()
    limits = account.limits
    bounds = {
        "requests": limits.requests_per_minute,
        "tokens": limits.tokens_per_minute,
        "concurrent": limits.concurrent,
    }
    bound = bounds[limit] or 0
    needed = ask.least if limit == "tokens" else 1
    wait = answer[4] / 1000 if needed <= bound else None
    return Refusal(account.id, limit, bound, answer[3], needed, wait, _standing(accounts, answer[5:], None))


def _standing(accounts: Sequence[Account], sums: Sequence[int], grant: Grant | None) -> Standing:
    """How the tightest account stands after a grant, from the sums before it."""
    more_requests, more_tokens = (0, 0) if grant is None else (int(grant.counts), grant.tokens)
    requests: tuple[int, int, float] | None = None
    tokens: tuple[int, int, float] | None = None
    for index, account in enumerate(accounts):
        if (most := account.limits.requests_per_minute) is not None:
            left = max(0, most - sums[2 * index] - more_requests)
            requests = min(requests or (most, left, WINDOW), (most, left, WINDOW), key=lambda each: each[1])
        if (most := account.limits.tokens_per_minute) is not None:
            left = max(0, most - sums[2 * index + 1] - more_tokens)
            tokens = min(tokens or (most, left, WINDOW), (most, left, WINDOW), key=lambda each: each[1])
    return Standing(*(requests or (None, 0, 0.0)), *(tokens or (None, 0, 0.0)))
