"""One contract for whatever counts rates and calls at once: exact under concurrency, settled, and telling why not."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from pagoda.core.errors import ConfigError, StoreError
from pagoda.service.keys.key import Limits
from pagoda.service.limits.account import Account, Ask, Refusal
from pagoda.service.limits.meter import Grant
from pagoda.service.limits.metrics import LimitMetrics
from pagoda.service.limits.redis_meter import RedisMeter, Sharing
from pagoda.service.limits.store import EmbeddedMeter, MeterStore
from tests.redis_server import RedisServer, redis_server
from tests.services import eventually

STORES = ("embedded", pytest.param("redis", marks=pytest.mark.requires("redis-server")))
ONE = Ask(0, 0)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="rd-") as path, redis_server(Path(path)) as running:
        yield running


def redis_meter(url: str, name: str = "g1", peers: tuple[str, ...] = ("g1",), when_gone: str = "refuse") -> RedisMeter:
    async def living() -> list[str]:
        return list(peers)

    sharing = Sharing(name, living, 5.0, 60.0, when_gone)
    return RedisMeter(url, sharing, LimitMetrics(CollectorRegistry(), by_key=False))


@pytest.fixture(params=STORES)
async def meter(request: pytest.FixtureRequest) -> AsyncIterator[MeterStore]:
    made: MeterStore = EmbeddedMeter()
    if request.param == "redis":
        url = request.getfixturevalue("server").url
        async with Redis.from_url(url) as redis:
            await redis.flushall()
        made = redis_meter(url)
    made.start()
    yield made
    await made.close()


def key(name: str = "a", **limits: int) -> Account:
    return Account(f"key:{name}", Limits(**limits), "t")  # type: ignore[arg-type]


async def told(meter: MeterStore) -> None:
    """Redis hears of what is settled in a moment."""
    if isinstance(meter, RedisMeter):
        await eventually(lambda: not meter._settled)


async def test_exactly_as_many_as_allowed_under_concurrency(meter: MeterStore) -> None:
    limited = (key(requests_per_minute=10),)
    decisions = await asyncio.gather(*(meter.reserve(limited, ONE) for _ in range(200)))
    granted = [each for each in decisions if isinstance(each, Grant)]
    assert len(granted) == 10
    assert sorted(each.standing.requests_left for each in granted) == list(range(10))
    refusal = next(each for each in decisions if isinstance(each, Refusal))
    assert (refusal.limit, refusal.bound, refusal.used) == ("requests", 10, 10)
    assert refusal.retry_after is not None
    assert 50 < refusal.retry_after <= 60


async def test_tokens_are_granted_as_far_as_they_go_and_come_back_when_settled(meter: MeterStore) -> None:
    limited = (key(tokens_per_minute=100),)
    first = await meter.reserve(limited, Ask(10, 70))
    second = await meter.reserve(limited, Ask(10, 70))
    assert isinstance(first, Grant)
    assert isinstance(second, Grant)
    assert (first.tokens, second.tokens) == (70, 30)
    refused = await meter.reserve(limited, Ask(10, 70))
    assert isinstance(refused, Refusal)
    assert (refused.limit, refused.used, refused.needed) == ("tokens", 100, 10)
    meter.settle(first, 20)
    meter.settle(first, 20)
    await told(meter)
    third = await meter.reserve(limited, Ask(10, 70))
    assert isinstance(third, Grant)
    assert third.tokens == 50
    assert third.standing.tokens_left == 0
    never = await meter.reserve(limited, Ask(101, 101))
    assert isinstance(never, Refusal)
    assert never.retry_after is None


async def test_calls_at_once_are_bounded_and_free_a_place_when_they_end(meter: MeterStore) -> None:
    limited = (key(concurrent=2),)
    grants = [await meter.reserve(limited, ONE) for _ in range(3)]
    assert [isinstance(each, Grant) for each in grants] == [True, True, False]
    part = await meter.reserve(limited, Ask(0, 0, counts=False))
    assert isinstance(part, Grant)  # of a call that has its place
    first = grants[0]
    assert isinstance(first, Grant)
    meter.settle(first, 0)
    await told(meter)
    assert isinstance(await meter.reserve(limited, ONE), Grant)
    assert isinstance(await meter.reserve(limited, ONE), Refusal)


async def test_all_accounts_or_none(meter: MeterStore) -> None:
    team = Account("team:t", Limits(requests_per_minute=3), "t")
    a, b = key("a", requests_per_minute=2), key("b", requests_per_minute=2)
    decisions = [await meter.reserve((each, team), ONE) for each in (a, a, a, b, b)]
    assert [isinstance(each, Grant) for each in decisions] == [True, True, False, True, False]
    assert [each.account for each in decisions if isinstance(each, Refusal)] == ["key:a", "team:t"]
    assert isinstance(await meter.reserve((b,), ONE), Grant)  # the team's refusal took nothing of it


@pytest.mark.requires("redis-server")
async def test_calls_without_tokens_leave_the_log_after_their_minute(server: RedisServer) -> None:
    async with Redis.from_url(server.url) as redis:
        await redis.flushall()
        meter, limited = redis_meter(server.url), (key(requests_per_minute=1),)
        grant = await meter.reserve(limited, ONE)
        assert isinstance(grant, Grant)
        log = "pagoda:{limits}:log:key:a"
        assert await redis.zincrby(log, -60_001, grant.id)  # as if a minute had passed
        assert isinstance(await meter.reserve(limited, ONE), Grant)
        assert await redis.zcard(log) == 1
        await meter.close()


@pytest.mark.requires("redis-server")
async def test_two_services_share_one_count_and_a_third_that_is_awaited_holds_both(server: RedisServer) -> None:
    async with Redis.from_url(server.url) as redis:
        await redis.flushall()
    limited = (key(requests_per_minute=6),)
    peers = ("g1", "g2", "g3")
    one, two, three = (redis_meter(server.url, name, peers) for name in peers)
    one.start()
    two.start()
    await asyncio.sleep(0.6)
    assert not one._open.is_set()
    assert not two._open.is_set()
    three.start()
    await eventually(lambda: one._open.is_set() and two._open.is_set() and three._open.is_set())
    decisions = await asyncio.gather(*(each.reserve(limited, ONE) for each in (one, two, three) for _ in range(10)))
    assert sum(isinstance(each, Grant) for each in decisions) == 6
    closed: list[bool] = []  # it may be open again before anybody looks
    clear = one._open.clear

    def noted() -> None:
        closed.append(True)
        clear()

    one._open.clear = noted  # type: ignore[method-assign]
    async with Redis.from_url(server.url) as redis:
        await redis.flushall()
    await eventually(lambda: bool(closed))
    await eventually(lambda: one._open.is_set() and two._open.is_set() and three._open.is_set())
    for each in (one, two, three):
        assert isinstance(await each.reserve(limited, ONE), Refusal)
        await each.close()


@pytest.mark.requires("redis-server")
async def test_without_redis_the_operators_choice_holds(tmp_path: Path) -> None:
    limited = (key(requests_per_minute=2),)
    refusing = redis_meter(f"unix://{tmp_path}/nowhere.sock")
    refusing._sharing = Sharing("g1", refusing._sharing.peers, 0.05, 60.0, "refuse")
    with pytest.raises(StoreError) as caught:
        await refusing.reserve(limited, ONE)
    assert caught.value.code == "limits_unavailable"
    await refusing.close()
    allowing = redis_meter(f"unix://{tmp_path}/nowhere.sock")
    allowing._sharing = Sharing("g1", allowing._sharing.peers, 0.05, 60.0, "allow")
    decisions = [await allowing.reserve(limited, ONE) for _ in range(3)]
    assert [isinstance(each, Grant) for each in decisions] == [True, True, False]  # in this service alone
    await allowing.close()


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"limits\.redis_url = \*\*\*"):
        redis_meter("nonsense")


@pytest.mark.requires("redis-server")
async def test_a_meter_closes_at_whatever_step_of_finding_redis_it_is(server: RedisServer) -> None:
    for steps in range(60):
        meter = redis_meter(server.url)
        meter.start()
        for _ in range(steps):
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await meter.close()
