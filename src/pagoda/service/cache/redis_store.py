"""The store in Redis, for the services of several machines. Redis is never worth failing or delaying a request for.

A request waits for it at most ``seconds``, once: the first failure opens a breaker, and until a probe in the background
finds Redis well again it counts as empty. Nothing here raises what Redis does, save a purge, which must not lie.

Keys are ``pagoda:cache:e:<tenant>:<model>:<digest>`` with digests for names, since names may hold anything. A purge
counts up the epoch of its scope; ``get`` reads the epochs with the entry, ``put`` writes only if they are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from redis.exceptions import RedisError

from pagoda.core.errors import StoreError
from pagoda.service.cache.store import Found, Key, Purged, Scope, StoreState
from pagoda.service.redis_client import open_redis
from pagoda.service.telemetry import Telemetry

logger = logging.getLogger(__name__)

_PREFIX = "pagoda:cache"
_EPOCH_SECONDS = 7 * 86_400  # longer than any answer takes
_PURGE_SECONDS = 30.0
_FAREWELL_SECONDS = 1.0
_FIRST_PROBE_SECONDS = 0.25
_LONGEST_PROBE_SECONDS = 5.0
_BATCH = 500
_PUT = """
local now = redis.call('MGET', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
local stamp = ''
for index = 1, 4 do stamp = stamp .. (now[index] or '') .. ',' end
if stamp ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""


class RedisStore:
    """Entries in Redis, which bounds its own memory (``maxmemory``) and lets entries die at their time."""

    def __init__(self, url: str, seconds: float, max_entry_bytes: int, telemetry: Telemetry) -> None:
        self._seconds = seconds
        self._max_entry_bytes = max_entry_bytes
        self._telemetry = telemetry
        self._probing: asyncio.Task[None] | None = None
        self._redis = open_redis(url, "cache.redis_url")
        self._put_script = self._redis.register_script(_PUT)
        telemetry.cache_working.set(1)

    @property
    def working(self) -> bool:
        """Whether requests ask it."""
        return self._probing is None

    async def get(self, key: Key) -> Found:
        """The entry and the epochs of its scopes; nothing at all while Redis fails."""
        if not self.working:
            return Found()
        try:
            async with self._bounded(self._seconds):
                value, *epochs = await self._redis.mget(_name(key), *_epochs(key))
        except StoreError as error:
            self._give_up(error)
            return Found()
        return Found(value, _stamp(epochs))

    async def put(self, key: Key, value: bytes, seconds: float, stamp: bytes) -> bool:
        """Keep it unless a purge came between."""
        if not self.working or len(value) > self._max_entry_bytes:
            return False
        try:
            async with self._bounded(self._seconds):
                names = [_name(key), *_epochs(key)]
                return bool(await self._put_script(keys=names, args=[stamp, value, int(seconds * 1000)]))
        except StoreError as error:
            self._give_up(error)
            return False

    async def drop(self, key: Key) -> None:
        """Forget it."""
        if not self.working:
            return
        try:
            async with self._bounded(self._seconds):
                await self._redis.unlink(_name(key))
        except StoreError as error:
            self._give_up(error)

    async def purge(self, scope: Scope) -> Purged:
        """Count up the scope's epoch, then remove what is there. Raises ``StoreError``."""
        entries = size = 0
        async with self._bounded(_PURGE_SECONDS):
            epoch = f"{_PREFIX}:epoch:{_short(scope.tenant)}:{_short(scope.model)}"
            await self._redis.incr(epoch)
            await self._redis.expire(epoch, _EPOCH_SECONDS)
            async for names, sizes in self._scan(scope):
                await self._redis.unlink(*names)
                entries, size = entries + len(names), size + sum(sizes)
        return Purged(entries, size)

    async def state(self) -> StoreState:
        """What is there now; of all services together."""
        state = StoreState("redis", self.working, 0, 0, None)
        if not self.working:
            return state
        async with self._bounded(_PURGE_SECONDS):
            async for names, sizes in self._scan(Scope()):
                state = replace(state, entries=state.entries + len(names), bytes=state.bytes + sum(sizes))
        return state

    async def close(self) -> None:
        """Close the connections."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        with contextlib.suppress(RedisError, OSError, TimeoutError):  # it may be away; nothing is left to say to it
            async with asyncio.timeout(_FAREWELL_SECONDS):  # a connection's own end has no limit
                await self._redis.aclose()

    async def _scan(self, scope: Scope) -> AsyncIterator[tuple[list[bytes], list[int]]]:
        """The names in a scope with the length of each entry, batch by batch."""
        pattern = f"{_PREFIX}:e:{_short(scope.tenant)}:{_short(scope.model)}:*"
        cursor = 0
        while True:
            cursor, names = await self._redis.scan(cursor, pattern, _BATCH)
            if names:
                async with self._redis.pipeline(transaction=False) as pipe:
                    for name in names:
                        pipe.strlen(name)
                    yield names, await pipe.execute()
            if cursor == 0:
                return

    @asynccontextmanager
    async def _bounded(self, seconds: float) -> AsyncIterator[None]:
        """Redis's own errors, and its silence, as ``StoreError``."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise StoreError(f"Redis did not answer within {seconds:g} s.", code="timeout", retryable=True) from error
        except (RedisError, OSError) as error:
            raise StoreError(f"Redis failed: {error}.", code="failed", retryable=True) from error

    def _give_up(self, error: StoreError) -> None:
        """Leave Redis alone until it is well again."""
        self._telemetry.cache_failures.labels(error.code).inc()
        if self._probing is None:
            logger.warning("%s Answers are not cached until it is back.", error.message)
            self._telemetry.cache_working.set(0)
            self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        wait = _FIRST_PROBE_SECONDS
        while True:
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_PROBE_SECONDS)
            try:
                await self._redis.connection_pool.disconnect()  # what a broken connection still holds is nobody's
                async with self._bounded(self._seconds):
                    await self._redis.ping()
            except (StoreError, RedisError, OSError):
                continue
            break
        logger.info("Redis is back; answers are cached again.")
        self._telemetry.cache_working.set(1)
        self._probing = None


def _short(name: str | None) -> str:
    """A name of fixed form; ``*`` for all."""
    return "*" if name is None else hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _name(key: Key) -> str:
    return f"{_PREFIX}:e:{_short(key.tenant)}:{_short(key.model)}:{key.digest.hex()}"


def _epochs(key: Key) -> list[str]:
    tenants, models = (None, key.tenant), (None, key.model)
    return [f"{_PREFIX}:epoch:{_short(tenant)}:{_short(model)}" for tenant in tenants for model in models]


def _stamp(epochs: list[Any]) -> bytes:
    return b"".join((epoch or b"") + b"," for epoch in epochs)
