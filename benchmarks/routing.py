"""What a pool costs inside the service: processor time of a request and of a frame, beside the same plain model.

The engines are iterators in this process that give their events at once, so that all that is measured is ours. Plain
model and pools take turns within each round, and of the differences in all rounds the median is taken: the machine may
be shared.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from statistics import median
from typing import Any

from pagoda.core.configuration import load_settings
from pagoda.core.types import Call, Delta, Event, Finish, Generation, Sampling, Started, Usage
from pagoda.model.catalog.entry import ModelEntry, RemoteAddress
from pagoda.model.engines.openai import OpenAIEngine
from tests.pooled import pooled
from tests.services import Service
from tests.upstreams import pool_of, upstreams

POLICIES = ("prefix_affinity", "least_outstanding", "power_of_two", "round_robin")
REQUESTS = 150
FRAMES = 200
ROUNDS = 25


def engine_of(frames: int) -> Any:
    """A ``generate`` that costs next to nothing."""

    async def generate(request: Generation) -> AsyncIterator[Event]:
        yield Started(request.model, "remote")
        for _ in range(frames):
            yield Delta(0, " word")
        yield Finish(0, "stop")
        yield Usage(10, frames)

    return generate


async def spend(service: Service, model: str, requests: int) -> float:
    """Processor seconds of a request."""
    models = service.platform._service
    assert models is not None
    call = Call()
    began = time.process_time()
    for number in range(requests):
        messages = ({"role": "user", "content": f"Question {number}: what is gravity?"},)
        wanted = Generation(model=model, messages=messages, sampling=Sampling(temperature=0))
        async with aclosing(models.generate(wanted, call)) as events:  # type: ignore[type-var]
            async for _ in events:
                pass
    return (time.process_time() - began) / requests


async def measure() -> dict[str, Any]:
    """Microseconds on top of a plain model, for a request of one frame and for each further frame."""
    with tempfile.TemporaryDirectory() as home:
        settings = load_settings({"server.port": 0}, {"HOME": home, "PAGODA_HOME": home + "/home"}, Path(home))
        async with upstreams(3, text=" word") as servers:
            source = RemoteAddress(url=servers[0].url, model="fake", key_env="UPSTREAM_KEY")
            plain = ModelEntry(id="plain", task="chat", engine="remote", source=source)
            pools = {policy: pool_of(servers, policy=policy) for policy in POLICIES}
            async with pooled(settings, pools, plain) as service:
                return await _compared(service)


async def _compared(service: Service) -> dict[str, Any]:
    models = service.platform._service
    assert models is not None
    names = ("plain", *POLICIES)
    for name in names:
        for _ in range(9):
            await spend(service, name, 1)
    engines = [host.engine for host in models.supervisor._hosts.values() if host.engine is not None]
    one: dict[str, list[float]] = {name: [] for name in names}
    many: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for found, frames, requests in ((one, 1, REQUESTS), (many, FRAMES + 1, REQUESTS // 15)):
            for engine in engines:
                assert isinstance(engine, OpenAIEngine)
                engine.generate = engine_of(frames)  # type: ignore[method-assign]
            for name in names:
                found[name].append(await spend(service, name, requests))
    paces = {name: [(b - a) / FRAMES for a, b in zip(one[name], many[name], strict=True)] for name in names}

    def more(found: dict[str, list[float]], name: str) -> float:
        """The median difference from the plain model, microseconds."""
        return round(1e6 * median(own - plain for own, plain in zip(found[name], found["plain"], strict=True)), 2)

    return {
        "plain_us": {"request": round(1e6 * median(one["plain"]), 1), "frame": round(1e6 * median(paces["plain"]), 2)},
        "us_more_a_request": {name: more(one, name) for name in POLICIES},
        "us_more_a_frame": {name: more(paces, name) for name in POLICIES},
    }
