"""The response cache: what a hit costs inside the service and saves, what a million entries weigh, what Redis adds.

The engine is the fake one with a 50 ms answer, so that the figures are the cache's own. Latencies are taken inside the
service's process; requests a second over HTTP with the service in a process of its own, as users have it, hit and miss
in turn.
"""

from __future__ import annotations

import asyncio
import dataclasses
import multiprocessing
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from benchmarks.ground import median, scripted_service
from pagoda.core.configuration import load_settings
from pagoda.core.setting_values import Secret
from pagoda.core.types import Call, Delta, Event, Finish, Generation, Sampling, Started, Usage
from pagoda.service.cache.embedded import EmbeddedStore
from pagoda.service.cache.entry import Entry, encode_entry
from pagoda.service.cache.store import Key
from tests.redis_server import redis_server
from tests.services import Service, fake_model, running

HITS = 3_000
AT_ONCE = 16
ROUNDS = 3
DISTINCT = 1_000_000
THROUGH = 20_000
MODEL = fake_model("slow", first_seconds=0.05, text="Fifty milliseconds of thought, in some forty words. " * 5)
QUICK = fake_model("quick")


def request(text: str, model: str = "slow") -> Generation:
    messages = ({"role": "system", "content": "You are brief. " * 20}, {"role": "user", "content": text})
    return Generation(model=model, messages=messages, sampling=Sampling(temperature=0))


async def through_service(service: Service, wanted: Generation) -> float:
    """Seconds inside the service: from its door to the last event."""
    assert service.platform._service is not None
    began = time.perf_counter()
    async with aclosing(service.platform._service.generate(wanted, Call())) as events:  # type: ignore[type-var]
        async for _ in events:
            pass
    return time.perf_counter() - began


async def hit_latency(service: Service) -> dict[str, float]:
    """Milliseconds of hits inside the service: median and 99th percentile."""
    wanted = request("the one that hits")
    await through_service(service, wanted)
    await asyncio.sleep(0.1)  # until the answer is kept: before that it comes from the flight, which decodes nothing
    taken = sorted([await through_service(service, wanted) * 1000 for _ in range(HITS)])
    return {"p50_ms": median(taken), "p99_ms": float(f"{taken[int(0.99 * HITS)]:.4g}")}


async def rate(url: str, wish: str, count: int, at_once: int = AT_ONCE, *, stream: bool = False) -> float:
    """Requests a second over HTTP of clients at once; the service is another process."""
    body = {"messages": [{"role": "user", "content": "over http"}], "temperature": 0, "stream": stream}
    left = count

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            headers = {"Cache-Control": wish} if wish else {}
            async with session.post(url + "/v1/chat/completions", json=body, headers=headers) as response:
                assert response.status == 200
                await response.read()

    async with aiohttp.ClientSession() as session:
        began = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(at_once)))
        return count / (time.perf_counter() - began)


def _memory() -> int:
    return int(psutil.Process().memory_info().rss)


def weight() -> dict[str, Any]:
    """A million distinct entries put into the embedded store with a bound, a part of them without; each in a process of
    its own, since memory that was used before is used again."""
    figures: dict[str, Any] = {}
    for label, bound, count in (("bounded", 256 * 2**20, DISTINCT), ("unbounded", 2**40, DISTINCT // 10)):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
            figures |= {f"{label}_{name}": value for name, value in other.submit(weigh, bound, count).result().items()}
    return figures


def weigh(bound: int, count: int) -> dict[str, Any]:
    """What a store holds after so many entries, as it counts and as the system does."""
    events: list[Event] = [Started("slow", "fake"), *(Delta(0, " word") for _ in range(40)), Finish(0, "stop")]
    nobody = bytes(32)
    # The measure is the store's, not the encoder's: a copy for each digest.
    value = encode_entry(nobody, Entry(time.time(), (*events, Usage(100, 40))))
    before, store = _memory(), EmbeddedStore(bound, 2**20)

    async def fill() -> None:
        for number in range(1, count + 1):
            digest = number.to_bytes(32)
            key = Key("t", "m", digest)
            found = await store.get(key)
            assert found.stamp is not None
            await store.put(key, value.replace(nobody, digest, 1), 3600, found.stamp)

    asyncio.run(fill())
    return {
        "puts": count,
        "entries": len(store),
        "counted_mb": round(store.bytes / 2**20, 1),
        "resident_mb": round((_memory() - before) / 2**20, 1),
    }


async def grown(service: Service) -> dict[str, float]:
    """Resident growth of the service process over distinct requests that are all kept, with a small bound."""
    steps = []
    for start in range(0, THROUGH, 2_000):
        for number in range(start, start + 2_000, 20):
            await asyncio.gather(
                *(through_service(service, request(f"q{n}", "quick")) for n in range(number, number + 20))
            )
        steps.append(_memory() / 2**20)
    return {"after_4000_mb": round(steps[1], 1), f"after_{THROUGH}_mb": round(steps[-1], 1)}


def server_of(url: str) -> psutil.Process:
    """The child of this process that listens at an address."""
    port = int(url.rpartition(":")[2])
    for child in psutil.Process().children(recursive=True):
        if any(each.laddr.port == port for each in child.net_connections("tcp") if each.status == psutil.CONN_LISTEN):
            return child
    raise RuntimeError(f"nothing here listens at {url}")


async def hit_cost(url: str, *, stream: bool) -> float:
    """Milliseconds of the service's processor time that a hit costs, its ledger included: what clients take of the
    machine does not count."""
    server, costs = server_of(url), []
    for _ in range(ROUNDS):
        before = server.cpu_times()
        await rate(url, "", HITS, stream=stream)
        after = server.cpu_times()
        costs.append(1000 * (after.user + after.system - before.user - before.system) / HITS)
    return median(costs)


async def rates(environment: Mapping[str, str], *, uncached: bool = True) -> dict[str, float]:
    """Requests a second of hits, and of the same request computed each time, by one client and by many."""
    figures: dict[str, float] = {}
    with scripted_service([MODEL], environment) as url:
        await rate(url, "", 1, 1)  # loads the model, keeps the answer
        for at_once, misses, hits in ((1, 60, 600), (AT_ONCE, 480, 3_000)):
            got: dict[str, list[float]] = {"hit": [], "uncached": []}
            for _ in range(ROUNDS):
                if uncached:
                    got["uncached"].append(await rate(url, "no-store", misses, at_once))
                got["hit"].append(await rate(url, "", hits, at_once))
            figures |= {f"{name}_requests_s_at_{at_once}": median(values) for name, values in got.items() if values}
            if uncached:
                ratios = [hit / miss for hit, miss in zip(got["hit"], got["uncached"], strict=True)]
                figures[f"hit_to_uncached_at_{at_once}"] = median(ratios)
        for way in (False, True):
            figures[f"hit_cpu_ms_{'streamed' if way else 'whole'}"] = await hit_cost(url, stream=way)
    return figures


async def measure() -> dict[str, Any]:
    """The table, and its figures."""
    figures: dict[str, Any] = await asyncio.to_thread(weight)
    with tempfile.TemporaryDirectory(prefix="bc-") as folder:
        home = Path(folder)
        settings = load_settings({}, {"PAGODA_HOME": str(home / "home"), "HOME": folder}, home)
        async with running(settings, [MODEL, QUICK]) as service:
            figures |= {f"hit_{name}": value for name, value in (await hit_latency(service)).items()}
        figures |= await rates({})
        small = dataclasses.replace(
            settings, home=home / "small", cache=dataclasses.replace(settings.cache, max_bytes=4 * 2**20)
        )
        async with running(small, [MODEL, QUICK]) as service:
            figures |= await grown(service)
        with redis_server(home) as redis:
            cache = dataclasses.replace(settings.cache, redis_url=Secret(redis.url))
            shared = dataclasses.replace(settings, home=home / "redis", cache=cache)
            async with running(shared, [MODEL, QUICK]) as service:
                figures |= {f"redis_hit_{name}": value for name, value in (await hit_latency(service)).items()}
            with_redis = await rates({"PAGODA_CACHE_REDIS_URL": redis.url}, uncached=False)
            figures |= {f"redis_{name}": value for name, value in with_redis.items()}
    for name, value in figures.items():
        print(f"{name:32}{value!s:>14}")
    return figures
