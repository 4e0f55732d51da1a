"""The gate before a model as clients meet it: through HTTP, with a scripted engine of few slots."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import aiohttp
import pytest

from pagoda.core.settings import Settings
from pagoda.service.line import Line
from tests.services import Service, eventually, fake_model, running

SLOW: dict[str, Any] = {
    "rules": [{"contains": "slow", "text": "done", "first_seconds": 0.4}],
    "parallel": 1,
    "text": "quick",
}


def bounded(settings: Settings, **admission: Any) -> Settings:
    return dataclasses.replace(settings, admission=dataclasses.replace(settings.admission, **admission))


def line_of(service: Service) -> Line:
    stage = service.platform
    assert stage._service is not None
    return stage._service.admission.gate(stage.entry("fake-chat", "chat")).line


async def ask(service: Service, text: str, **headers: str) -> tuple[int, Any, Any]:
    body = {"messages": [{"role": "user", "content": text}]}
    async with service.session.post(service.url + "/v1/chat/completions", json=body, headers=headers) as response:
        return response.status, await response.json(), response.headers


async def occupied(service: Service) -> asyncio.Task[Any]:
    """The only slot is taken."""
    await ask(service, "warm up")
    task = asyncio.create_task(ask(service, "slow"))
    await eventually(lambda: line_of(service).free == 0)
    return task


async def test_a_full_queue_answers_429_with_the_time_to_ask_again(settings: Settings) -> None:
    async with running(bounded(settings, queue=2), [fake_model(**SLOW)]) as service:
        await ask(service, "slow")
        busy = await occupied(service)
        waiting = [asyncio.create_task(ask(service, f"slow {place}")) for place in range(2)]
        await eventually(lambda: line_of(service).waiting == 2)
        status, answer, headers = await ask(service, "one too many")
        assert (status, answer["error"]["code"], answer["error"]["type"]) == (429, "queue_full", "rate_limit_error")
        assert 1 <= int(headers["Retry-After"]) <= 3
        assert [(await task)[0] for task in (busy, *waiting)] == [200, 200, 200]


async def test_an_urgent_request_is_answered_before_those_that_came_first(settings: Settings) -> None:
    async with running(settings, [fake_model(**SLOW)]) as service:
        busy = await occupied(service)
        ended: list[str] = []

        async def timed(name: str, priority: str) -> None:
            status, _, _ = await ask(service, f"slow {name}", **{"X-Request-Priority": priority})
            assert status == 200
            ended.append(name)

        tasks = []
        for place, (name, priority) in enumerate([("batch", "batch"), ("normal", "10"), ("urgent", "interactive")]):
            tasks.append(asyncio.create_task(timed(name, priority)))
            await eventually(lambda place=place: line_of(service).waiting == place + 1)
        await asyncio.gather(busy, *tasks)
        assert ended == ["urgent", "normal", "batch"]


@pytest.mark.parametrize("priority", ["soon", "-1", "100", "1.5", "\u00b2"])
async def test_a_priority_that_makes_no_sense_is_refused(settings: Settings, priority: str) -> None:
    async with running(settings, [fake_model()]) as service:
        status, answer, _ = await ask(service, "hi", **{"X-Request-Priority": priority})
        assert (status, answer["error"]["param"]) == (400, "X-Request-Priority")


async def test_a_client_that_leaves_leaves_the_line(settings: Settings) -> None:
    async with running(settings, [fake_model(**SLOW)]) as service:
        busy = await occupied(service)
        leaver = asyncio.create_task(ask(service, "slow leaver"))
        await eventually(lambda: line_of(service).waiting == 1)
        leaver.cancel()
        await eventually(lambda: line_of(service).waiting == 0)
        assert (await busy)[0] == 200
        await eventually(lambda: line_of(service).free == 1)


async def test_a_deadline_that_cannot_be_met_is_refused_at_once(settings: Settings) -> None:
    async with running(settings, [fake_model(**SLOW)]) as service:
        for _ in range(3):
            await ask(service, "slow")
        busy = await occupied(service)
        waiting = asyncio.create_task(ask(service, "slow too"))
        await eventually(lambda: line_of(service).waiting == 1)
        status, answer, headers = await ask(service, "slow", **{"X-Request-Timeout": "0.3"})
        assert (status, answer["error"]["code"]) == (429, "deadline_unreachable"), "not a 504, which waits"
        assert "Retry-After" in headers
        assert [(await task)[0] for task in (busy, waiting)] == [200, 200]


async def test_a_deadline_that_passes_in_line_is_a_timeout(settings: Settings) -> None:
    async with running(settings, [fake_model(**SLOW)]) as service:
        busy = await occupied(service)
        status, answer, _ = await ask(service, "slow", **{"X-Request-Timeout": "0.1"})
        assert (status, answer["error"]["code"]) == (504, "timeout")
        assert line_of(service).waiting == 0
        assert (await busy)[0] == 200


async def test_nobody_waits_longer_than_the_settings_allow(settings: Settings) -> None:
    async with running(bounded(settings, wait_seconds=0.1), [fake_model(**SLOW)]) as service:
        busy = await occupied(service)
        status, answer, headers = await ask(service, "slow")
        assert (status, answer["error"]["code"]) == (429, "queue_timeout")
        assert "Retry-After" in headers
        patient = asyncio.create_task(ask(service, "slow", **{"X-Request-Priority": "batch"}))
        assert [(await task)[0] for task in (busy, patient)] == [200, 200]


async def test_the_queue_is_seen_in_the_metrics(settings: Settings) -> None:
    async with running(bounded(settings, queue=1), [fake_model(**SLOW)]) as service:
        busy = await occupied(service)
        waiting = asyncio.create_task(ask(service, "slow"))
        await eventually(lambda: line_of(service).waiting == 1)
        await ask(service, "one too many")
        async with service.session.get(service.url + "/metrics") as response:
            text = await response.text()
        assert 'pagoda_queue_depth{model="fake-chat",priority="normal"} 1.0' in text
        assert 'pagoda_queue_refusals_total{model="fake-chat",reason="full"} 1.0' in text
        assert 'pagoda_queue_wait_seconds_count{model="fake-chat",priority="normal"}' in text
        assert 'pagoda_model_memory_bytes{kind="held",model="fake-chat",pool="host"}' in text
        await asyncio.gather(busy, waiting)


async def test_choices_take_a_slot_each(settings: Settings) -> None:
    async with running(settings, [fake_model(**{**SLOW, "parallel": 3})]) as service:
        await ask(service, "warm up")
        body = {"messages": [{"role": "user", "content": "slow"}], "n": 2}
        wide = asyncio.create_task(service.post("/v1/chat/completions", body))
        await eventually(lambda: line_of(service).free == 1)
        status, answer = await wide
        assert (status, len(answer["choices"])) == (200, 2)
        assert line_of(service).free == 3


async def test_a_stream_whose_client_leaves_frees_its_slot(settings: Settings) -> None:
    model = fake_model(parallel=1, text="word " * 500, token_seconds=0.01)
    async with running(settings, [model]) as service:
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        async with aiohttp.ClientSession() as session:
            response = await session.post(service.url + "/v1/chat/completions", json=body)
            await response.content.readline()
            assert line_of(service).free == 0
            response.close()
        await eventually(lambda: line_of(service).free == 1)
