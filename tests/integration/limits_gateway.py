"""The limits of one gateway as a process: many calls at once under two keys; tells what became of them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import orjson

from pagoda.core.configuration import load_settings
from pagoda.core.errors import LimitExceeded
from pagoda.core.storage.store import Store, open_store
from pagoda.core.types import Call, Generation, Usage
from pagoda.service.limits.opening import open_limiter
from pagoda.service.telemetry import Telemetry
from tests.rings import Ring, limited
from tests.services import fake_model

CALLS = 100


async def main(home: str, database: str, redis: str) -> None:
    settings = load_settings(
        {"storage.url": database, "limits.redis_url": redis, "limits.redis_seconds": 5},
        {"HOME": home, "PAGODA_HOME": home},
        Path(home),
    )
    store = open_store(settings)
    await store.open()

    async def records() -> Store:
        return store

    ring = Ring(limited("rate", requests_per_minute=10), limited("budget", budget_tokens=5000))
    limiter = open_limiter(settings, records, Telemetry(), ring)
    limiter.start()
    await limiter.books.ledger()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    model, asked = fake_model(), Generation(model="fake-chat", prompt="x" * 99, max_tokens=200)
    used: list[int] = []
    refused: list[str] = []

    async def call(key: str) -> None:
        try:
            charge, request = await limiter.generation(model, asked, Call(key_id=key, tenant="tests"), None)
        except LimitExceeded as error:
            refused.append(f"{key} {error.code}")
            return
        with charge:
            charge.begin()
            await asyncio.sleep(0.01)
            charge.note(Usage(20, (request.max_tokens or 0) // 2))
        used.append(20 + (request.max_tokens or 0) // 2 if key == "budget" else 0)

    await asyncio.gather(*(call(key) for key in ("rate", "budget") for _ in range(CALLS)))
    for _ in range(50):  # a client that comes again finds what is really left
        await asyncio.gather(*(call("budget") for _ in range(10)))
        await asyncio.sleep(0.1)
    await limiter.close()
    await store.close()
    told = {"rate": used.count(0), "tokens": sum(used), "refused": refused}
    print(orjson.dumps(told).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
