"""A gateway's meter as a process, for tests of Redis's faults: asks as often as it can, tells every grant."""

from __future__ import annotations

import asyncio
import random
import sys
import time

from prometheus_client import CollectorRegistry

from pagoda.core.errors import StoreError
from pagoda.service.keys.key import Limits
from pagoda.service.limits.account import Account, Ask
from pagoda.service.limits.meter import Grant
from pagoda.service.limits.metrics import LimitMetrics
from pagoda.service.limits.redis_meter import RedisMeter, Sharing

RATE = (Account("key:rate", Limits(requests_per_minute=60), "t"),)
ROOM = (Account("key:room", Limits(concurrent=5), "t"),)


async def main(url: str, name: str, peers: list[str]) -> None:
    async def living() -> list[str]:
        return peers

    sharing = Sharing(name, living, 0.05, 60.0, "refuse")
    meter = RedisMeter(url, sharing, LimitMetrics(CollectorRegistry(), by_key=False))
    meter.start()
    refused = errors = 0
    slowest = 0.0
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, stop.set)
    while not stop.is_set():
        for accounts in (RATE, ROOM):
            began = time.monotonic()
            try:
                decision = await meter.reserve(accounts, Ask(0, 0))
            except StoreError:
                errors += 1
                slowest = max(slowest, time.monotonic() - began)
                await asyncio.sleep(0.01)
                continue
            if not isinstance(decision, Grant):
                refused += 1
                continue
            if accounts is RATE:
                print("rate", time.time(), flush=True)
                meter.settle(decision, 0)
            else:
                print("begin", time.time(), flush=True)
                await asyncio.sleep(random.random() / 50)
                print("end", time.time(), flush=True)
                meter.settle(decision, 0)
        await asyncio.sleep(0.005)
    loop.remove_reader(sys.stdin)  # an end of input is always ready to be read
    await meter.close()
    print("done", refused, errors, slowest, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3].split(",")))
