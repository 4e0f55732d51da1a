"""One contract for every store of cached answers: what is put is got, until its time, a purge, or want of room."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pagoda.core.errors import ConfigError
from pagoda.service.cache.embedded import EmbeddedStore
from pagoda.service.cache.redis_store import RedisStore
from pagoda.service.cache.store import CacheStore, Key, Scope
from pagoda.service.telemetry import Telemetry
from tests.redis_server import RedisServer, redis_server

MOST = 1000
STORES = ("embedded", pytest.param("redis", marks=pytest.mark.requires("redis-server")))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path: a socket's has at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="rd-") as path:
        yield Path(path)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RedisServer]:
    with redis_server(folder) as running:
        yield running


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[CacheStore]:
    made: CacheStore
    if request.param == "embedded":
        made = EmbeddedStore(100_000, MOST)
    else:
        url = request.getfixturevalue("server").url
        made = RedisStore(url, 5.0, MOST, Telemetry())
        await made.purge(Scope())
    yield made
    await made.close()


def key(number: int = 0, tenant: str = "t", model: str = "m") -> Key:
    return Key(tenant, model, f"{tenant}/{model}/{number}".encode().ljust(32, b"."))


async def put(store: CacheStore, where: Key, value: bytes, seconds: float = 100.0) -> bool:
    found = await store.get(where)
    assert found.stamp is not None
    return await store.put(where, value, seconds, found.stamp)


async def test_what_is_put_is_got_and_can_be_replaced_and_dropped(store: CacheStore) -> None:
    assert (await store.get(key())).value is None
    assert await put(store, key(), b"one\0\xff")
    assert (await store.get(key())).value == b"one\0\xff"
    assert (await store.get(key(1))).value is None
    assert await put(store, key(), b"two")
    assert (await store.get(key())).value == b"two"
    assert (await store.state()).entries == 1
    await store.drop(key())
    await store.drop(key())
    assert (await store.get(key())).value is None
    assert (await store.state()).entries == 0


async def test_an_entry_dies_at_its_time(store: CacheStore) -> None:
    await put(store, key(1), b"short", seconds=0.05)
    await put(store, key(2), b"long")
    await asyncio.sleep(0.1)
    assert (await store.get(key(1))).value is None
    assert (await store.get(key(2))).value == b"long"


async def test_a_large_entry_is_refused(store: CacheStore) -> None:
    assert not await put(store, key(), b"x" * (MOST + 1))
    assert (await store.get(key())).value is None


SCOPES = {
    "all": (Scope(), set()),
    "tenant": (Scope(tenant="a"), {("b*", "m"), ("b*", "n/[x]")}),
    "model": (Scope(model="n/[x]"), {("a", "m"), ("b*", "m")}),
    "both": (Scope("b*", "m"), {("a", "m"), ("a", "n/[x]"), ("b*", "n/[x]")}),
    "nobody": (Scope(tenant="*"), {("a", "m"), ("a", "n/[x]"), ("b*", "m"), ("b*", "n/[x]")}),
}


@pytest.mark.parametrize("name", SCOPES)
async def test_a_purge_removes_its_scope_and_says_how_much(store: CacheStore, name: str) -> None:
    scope, left = SCOPES[name]
    places = [(tenant, model) for tenant in ("a", "b*") for model in ("m", "n/[x]")]
    for tenant, model in places:
        await put(store, key(1, tenant, model), b"value")
    purged = await store.purge(scope)
    assert purged.entries == 4 - len(left)
    assert purged.bytes >= 5 * purged.entries
    there = {place for place in places if (await store.get(key(1, *place))).value is not None}
    assert there == left
    assert (await store.state()).entries == len(left)


@pytest.mark.parametrize("name", SCOPES)
async def test_an_answer_begun_before_a_purge_is_not_kept_after_it(store: CacheStore, name: str) -> None:
    scope, left = SCOPES[name]
    for place in [(tenant, model) for tenant in ("a", "b*") for model in ("m", "n/[x]")]:
        where = key(1, *place)
        stamp = (await store.get(where)).stamp
        assert stamp is not None
        await store.purge(scope)
        assert await store.put(where, b"old", 100, stamp) == (place in left)
        assert await put(store, where, b"new")


async def test_many_entries_are_purged_in_steps(store: CacheStore) -> None:
    for number in range(1200):
        assert await put(store, key(number, model=f"m{number % 2}"), b"v" * 10)
        if number == 200 and isinstance(store, EmbeddedStore):
            break
    before = (await store.state()).entries
    purged = await store.purge(Scope(model="m1"))
    assert 0 < purged.entries < before
    assert (await store.state()).entries == before - purged.entries


@pytest.mark.requires("redis-server")
async def test_a_purge_by_one_service_reaches_another(server: RedisServer) -> None:
    here, there = (RedisStore(server.url, 5.0, MOST, Telemetry()) for _ in range(2))
    try:
        await put(here, key(), b"shared")
        found = await there.get(key())
        assert found.value == b"shared"
        assert found.stamp is not None
        await here.purge(Scope(tenant="t"))
        assert not await there.put(key(), b"old", 100, found.stamp)
        assert (await there.get(key())).value is None
    finally:
        await here.close()
        await there.close()


def test_an_address_that_is_none_is_named_without_its_password() -> None:
    with pytest.raises(ConfigError, match=r"cache\.redis_url = \*\*\*") as wrong:
        RedisStore("http://user:hunter2@host", 1, 1, Telemetry())
    assert "hunter2" not in wrong.value.message


async def test_least_recently_used_goes_first_and_the_bound_holds() -> None:
    evicted = []
    store = EmbeddedStore(5_000, MOST, evicted=lambda: evicted.append(1))
    for number in range(100):
        await put(store, key(number), b"x" * 100)
        assert store.bytes <= 5_000
        assert (await store.get(key(0))).value is not None, "it was used a moment ago"
    assert len(evicted) == 100 - len(store)
    assert 5 < len(store) < 20
    assert (await store.get(key(99))).value is not None
    assert (await store.get(key(50))).value is None
    await store.purge(Scope())
    assert store.bytes == 0


@pytest.mark.requires("redis-server")
async def test_requests_at_once_each_get_their_own(server: RedisServer) -> None:
    store = RedisStore(server.url, 5.0, MOST, Telemetry())
    try:
        await asyncio.gather(*(put(store, key(number), b"%d" % number) for number in range(50)))
        waiters = [asyncio.ensure_future(store.get(key(number))) for number in range(50)]
        await asyncio.sleep(0)
        for waiter in waiters[::2]:
            waiter.cancel()
        got = await asyncio.gather(*(store.get(key(number)) for number in range(50)))
        assert [found.value for found in got] == [b"%d" % number for number in range(50)]
        await asyncio.gather(*waiters, return_exceptions=True)
    finally:
        await store.close()
