"""The semantic cache in a running service: on only with a calibration, and never across what differs."""

from __future__ import annotations

import dataclasses
from typing import Any

import aiohttp

from pagoda.application.calibration import calibration_path
from pagoda.core.settings import Settings
from pagoda.service.cache.calibration import SAME, Calibration, Rate
from pagoda.service.cache.semantic import SIMILAR, Approval, keep_approval
from tests.services import Service, fake_model, running

MODELS = (fake_model("a-model"), fake_model("vectors", task="embedding"))


def semantic(settings: Settings) -> Settings:
    return dataclasses.replace(
        settings, cache=dataclasses.replace(settings.cache, routes={"/v1/chat/completions": "semantic"})
    )


async def ask(service: Service, *texts: str, **fields: Any) -> tuple[str, Any]:
    messages = [
        {"role": "user" if place % 2 == 0 else "assistant", "content": text} for place, text in enumerate(texts)
    ]
    body = {"messages": messages, "temperature": 0, **fields}
    async with service.session.post(service.url + "/v1/chat/completions", json=body) as response:
        assert response.status == 200
        return response.headers["X-Cache"], await response.json()


async def state(session: aiohttp.ClientSession, url: str) -> Any:
    async with session.get(url + "/api/v1/cache") as response:
        return await response.json()


async def test_without_a_calibration_it_stays_off_and_says_so(settings: Settings) -> None:
    async with running(semantic(settings), MODELS) as service:
        assert [(await ask(service, text))[0] for text in ("tell me why", "why, tell me please")] == ["miss", "miss"]
        assert "stays off: it was never calibrated" in (await state(service.session, service.url))["semantic"]


async def test_with_one_it_answers_the_same_question_in_other_words(settings: Settings) -> None:
    found = Calibration(True, -1.0, (Rate(SAME, "en", 9, 9), Rate("order", "en", 9, 0), Rate("order", "zh", 9, 0)))
    keep_approval(calibration_path(settings), Approval.of("vectors", found, 0.01))
    async with running(semantic(settings), MODELS) as service:
        assert "is on" in (await state(service.session, service.url))["semantic"]
        use, first = await ask(service, "how do I paint a wall")
        assert use == "miss"
        use, second = await ask(service, "what is the way to paint a wall")
        assert (use, second["warnings"]) == ("hit", [SIMILAR])
        assert second["choices"] == first["choices"]
        assert (await ask(service, "how do I not paint a wall"))[0] == "miss"
        assert (await ask(service, "how do I paint 2 walls"))[0] == "miss"
        assert (await ask(service, "what is the way to paint a wall", seed=1))[0] == "miss"
        assert (await ask(service, "hello", "hi", "what is the way to paint a wall"))[0] == "miss"
        async with service.session.delete(service.url + "/api/v1/cache") as response:
            assert response.status == 200
        assert (await ask(service, "what could be the way to paint a wall"))[0] == "miss", "a purge reaches it too"
