"""Keeping a load on a target: closed loop or open loop, until it is over or the user has seen enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import aiohttp

from pagoda.application.bench.measuring import Timeline, measure
from pagoda.application.bench.schedule import Closed, Length, Load, due_times

MakeBody: TypeAlias = Callable[[int], Mapping[str, Any]]
"""Gives the body of the request of a number."""


@dataclass(slots=True)
class Measured:
    """What a load gave."""

    load: Load
    timelines: list[Timeline] = field(default_factory=list)
    seconds: float = 0.0
    """From the start to the last answer."""
    processor: float = 0.0
    """The share of a core that measuring itself took: near 1 the client, not the target, is the limit."""
    interrupted: bool = False


async def drive(
    session: aiohttp.ClientSession, url: str, make: MakeBody, load: Load, length: Length, seed: int, measured: Measured
) -> None:
    """Keep the load; ``measured`` grows meanwhile and is complete on return. Cancelled, it holds what there was."""
    origin, used = time.perf_counter(), time.process_time()

    async def one(number: int, due: float) -> None:
        line = Timeline(due)
        measured.timelines.append(line)
        await measure(session, url, make(number), line, origin)

    try:
        async with asyncio.TaskGroup() as group:
            if isinstance(load, Closed):
                numbers = iter(range(length.requests if length.requests is not None else 2**62))
                for _ in range(load.concurrency):
                    group.create_task(_client(one, numbers, length, origin))
            else:
                for number, due in enumerate(due_times(load, length, seed)):
                    await asyncio.sleep(origin + due - time.perf_counter())
                    group.create_task(one(number, due))
    except asyncio.CancelledError:
        measured.interrupted = True
        raise
    finally:
        measured.seconds = time.perf_counter() - origin
        measured.processor = (time.process_time() - used) / measured.seconds


async def _client(one: Any, numbers: Any, length: Length, origin: float) -> None:
    """One of the clients of a closed loop: asks, waits, asks again."""
    for number in numbers:
        now = time.perf_counter() - origin
        if not length.allows(number, now):
            return
        await one(number, now)
