"""Redis slow, frozen or gone: a request waits for it once and briefly, never fails by it, and metrics tell."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pagoda.core.setting_values import Secret
from pagoda.core.settings import Settings
from pagoda.service.cache.entry import Entry, UnusableEntry, decode_entry, encode_entry
from pagoda.service.cache.redis_store import RedisStore
from pagoda.service.cache.store import Key, Scope
from tests.redis_server import RedisServer, redis_server
from tests.services import Service, eventually, fake_model, running

pytestmark = pytest.mark.requires("redis-server")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="rd-") as folder, redis_server(Path(folder)) as running_server:
        yield running_server


def with_redis(settings: Settings, url: str, seconds: float = 0.05) -> Settings:
    cache = dataclasses.replace(settings.cache, redis_url=Secret(url), redis_seconds=seconds)
    return dataclasses.replace(settings, cache=cache)


@pytest.fixture
async def service(settings: Settings, server: RedisServer) -> AsyncIterator[Service]:
    async with running(with_redis(settings, server.url, 0.2), [fake_model()]) as running_service:
        await use(running_service, "warm the engine")
        yield running_service


def store_of(service: Service) -> RedisStore:
    cache = service.platform._cache
    assert cache is not None
    store = cache._store
    assert isinstance(store, RedisStore)
    return store


async def kept(service: Service) -> None:
    """Wait until Redis has what was answered: until then an answer is given to all who ask for it."""
    cache = service.platform._cache
    assert cache is not None
    await eventually(lambda: not cache._flights)


async def use(service: Service, text: str) -> str:
    body = {"messages": [{"role": "user", "content": text}], "temperature": 0}
    async with service.session.post(service.url + "/v1/chat/completions", json=body) as response:
        assert response.status == 200, await response.text()
        assert (await response.json())["choices"][0]["message"]["content"] == f"fake {text}"
        return response.headers["X-Cache"]


def metric(service: Service, name: str, **labels: str) -> float:
    return service.platform.telemetry.registry.get_sample_value(name, labels) or 0.0


async def test_two_services_share_what_one_has_computed(settings: Settings, server: RedisServer) -> None:
    other = dataclasses.replace(settings, home=settings.home / "other")
    model = fake_model()
    async with (
        running(with_redis(settings, server.url), [model]) as one,
        running(with_redis(other, server.url), [model]) as two,
    ):
        assert (await use(one, "shared"), await use(two, "shared")) == ("miss", "hit")
        async with one.session.delete(one.url + "/api/v1/cache") as response:
            assert (await response.json())["entries"] == 1
        assert await use(two, "shared") == "miss"


async def test_a_frozen_redis_costs_one_wait_and_fails_nothing(service: Service, server: RedisServer) -> None:
    assert [await use(service, "a b"), await use(service, "a b")] == ["miss", "hit"]
    usual = await _seconds(service, "usual")
    await kept(service)
    server.freeze()
    first = await _seconds(service, "while frozen")
    then = [await _seconds(service, f"still frozen {number}") for number in range(10)]
    assert first < usual + 0.5, "one short wait, on a machine that may be busy"
    assert metric(service, "pagoda_cache_store_failures_total", reason="timeout") == 1, "only the first has waited"
    assert max(then) < 0.5
    assert metric(service, "pagoda_cache_store_up") == 0
    async with service.session.get(service.url + "/api/v1/cache") as response:
        assert (await response.json())["working"] is False
    server.thaw()
    await eventually(lambda: store_of(service).working)
    assert metric(service, "pagoda_cache_store_up") == 1
    assert [await use(service, "after"), await use(service, "after")] == ["miss", "hit"]
    assert await use(service, "a b") == "hit", "what was kept before is still there"


async def _seconds(service: Service, text: str) -> float:
    began = time.perf_counter()
    await use(service, text)
    return time.perf_counter() - began


async def test_the_wait_itself_is_bounded(settings: Settings, server: RedisServer) -> None:
    """Measured at the store, where nothing else takes time."""
    async with running(with_redis(settings, server.url, seconds=0.05), [fake_model()]) as service:
        store = store_of(service)
        key = Key("t", "m", b"k" * 32)
        await store.get(key)
        server.freeze()
        began = time.perf_counter()
        got = await asyncio.gather(*(store.get(key) for _ in range(20)))
        waited = time.perf_counter() - began
        assert all(found.value is None and found.stamp is None for found in got)
        assert 0.045 < waited < 0.5, "all at once wait together, not one after another"
        failures = metric(service, "pagoda_cache_store_failures_total", reason="timeout")
        for _ in range(100):
            await store.get(key)
            assert not await store.put(key, b"v", 1, b"")
            await store.drop(key)
        assert metric(service, "pagoda_cache_store_failures_total", reason="timeout") == failures, "nobody is asked"
        server.thaw()


async def test_redis_killed_and_started_again(service: Service, server: RedisServer) -> None:
    assert [await use(service, "x"), await use(service, "x")] == ["miss", "hit"]
    await kept(service)
    server.kill()
    assert [await use(service, "x"), await use(service, "x")] == ["miss", "miss"]
    assert metric(service, "pagoda_cache_store_failures_total", reason="failed") == 1
    async with service.session.delete(service.url + "/api/v1/cache") as response:
        assert response.status == 503, "a purge that did not happen must not look like one"
        assert (await response.json())["error"]["code"] == "failed"
    server.start()
    await eventually(lambda: store_of(service).working)
    assert [await use(service, "x"), await use(service, "x")] == ["miss", "hit"]


async def test_a_service_starts_without_its_redis(settings: Settings, server: RedisServer) -> None:
    server.kill()
    async with running(with_redis(settings, server.url), [fake_model()]) as service:
        assert [await use(service, "early"), await use(service, "early")] == ["miss", "miss"]
        server.start()
        await eventually(lambda: store_of(service).working)
        assert [await use(service, "early"), await use(service, "early")] == ["miss", "hit"]


async def test_redis_frozen_while_an_answer_is_computed(settings: Settings, server: RedisServer) -> None:
    slow = fake_model(first_seconds=0.2)
    async with running(with_redis(settings, server.url), [slow]) as service:
        await use(service, "warm")
        asked = asyncio.ensure_future(use(service, "frozen meanwhile"))
        await eventually(lambda: bool(service.platform._cache and service.platform._cache._flights))
        await asyncio.sleep(0.05)
        server.freeze()
        assert await asked == "miss"
        await eventually(lambda: not store_of(service).working)
        server.thaw()
        await eventually(lambda: store_of(service).working)
        assert await use(service, "frozen meanwhile") in ("hit", "miss"), "Redis may have carried out what it was told"
        assert [await use(service, "afterwards"), await use(service, "afterwards")] == ["miss", "hit"]


@pytest.mark.parametrize("reason", ["corrupt", "version", "foreign", "short", "empty"])
async def test_an_unusable_entry_is_ignored_deleted_and_counted(
    settings: Settings, server: RedisServer, reason: str
) -> None:
    patient = with_redis(settings, server.url, 5.0)  # a crowded machine is not what this is about
    async with running(patient, [fake_model()]) as service:
        await _break_an_entry(service, server, reason)


async def _break_an_entry(service: Service, server: RedisServer, reason: str) -> None:
    from redis.asyncio import Redis

    assert await use(service, "to be broken") == "miss"
    await kept(service)
    client = Redis.from_url(server.url)
    try:
        names = [each async for each in client.scan_iter("pagoda:cache:e:*")]
        for name in names:
            raw = await client.get(name)
            assert isinstance(raw, bytes)
            broken = {
                "corrupt": raw[:-1] + bytes([raw[-1] ^ 1]),
                "version": raw[:4] + b"\0" * 8 + raw[12:],
                "foreign": raw[:12] + b"\0" * 32 + raw[44:],
                "short": raw[:20],
                "empty": b"",
            }[reason]
            await client.set(name, broken)
        counted = reason if reason in ("corrupt", "version", "foreign") else "corrupt"
        before = metric(service, "pagoda_cache_ignored_total", reason=counted)
        assert await use(service, "to be broken") == "miss"
        assert metric(service, "pagoda_cache_ignored_total", reason=counted) == before + 1
        assert await use(service, "to be broken") == "hit", "a good one has taken its place"
    finally:
        await client.aclose()


def test_every_byte_of_an_entry_is_guarded() -> None:
    digest = b"d" * 32
    raw = encode_entry(digest, Entry(12.0, ()))
    assert decode_entry(digest, raw) == Entry(12.0, ())
    guarded = [place for place in range(len(raw)) if not 44 <= place < 52]  # all but the time it was made
    for place in guarded:
        with pytest.raises(UnusableEntry):
            decode_entry(digest, raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])


async def test_a_purge_has_more_patience_than_a_request(service: Service, server: RedisServer) -> None:
    store = store_of(service)
    await store.purge(Scope())
    server.freeze()
    purge = asyncio.ensure_future(store.purge(Scope()))
    await asyncio.sleep(0.1)
    assert not purge.done(), "it waits longer than a request would"
    server.thaw()
    await purge
