"""A crowd that comes at once, before anything was taken from the ledger."""

from __future__ import annotations

import asyncio

from pagoda.core.settings import Settings
from pagoda.core.storage.store import Store, open_store
from pagoda.core.types import Call, Generation
from pagoda.service.limits.limiter import Limiter
from pagoda.service.limits.opening import open_limiter
from pagoda.service.telemetry import Telemetry
from tests.rings import Ring, limited
from tests.services import fake_model

CROWD = 300


async def lengths(limiter: Limiter) -> list[int | None]:
    """How long the answers to a crowd of equal calls may be, none of which has ended."""
    asked = Generation(model="fake-chat", prompt="x" * 99)

    async def ask() -> int | None:
        _, request = await limiter.generation(fake_model(), asked, Call(key_id="k", tenant="tests"), None)
        return request.max_tokens

    return await asyncio.gather(*(ask() for _ in range(CROWD)))


async def test_an_ample_budget_is_ample_for_all_of_them(settings: Settings) -> None:
    async with open_store(settings) as store:

        async def records() -> Store:
            return store

        limiter = open_limiter(settings, records, Telemetry(), Ring(limited("k", budget_tokens=10**9)))
        assert await lengths(limiter) == [settings.limits.answer_tokens] * CROWD
        await limiter.close()
