"""Pools over scripted servers: one name, several replicas, and clients that notice nothing of what fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from pagoda.core.settings import Settings
from tests.pooled import ask, pooled
from tests.services import eventually, fake_model
from tests.upstreams import metric, pool_of, upstreams

TEXT = "Once upon a time there was a scripted answer of some length."


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "key")


def text_of(body: Any) -> str:
    return str(body["choices"][0]["message"]["content"])


async def test_a_pool_answers_under_its_own_name_from_all_of_its_replicas(settings: Settings) -> None:
    async with (
        upstreams(3, text=TEXT) as servers,
        pooled(settings, {"chat": pool_of(servers, policy="round_robin")}) as service,
    ):
        async with service.session.get(service.url + "/v1/models/chat") as listed:
            assert listed.status == 200
        for number in range(6):
            status, body = await service.post("/v1/chat/completions", ask(seed=number))
            assert (status, text_of(body), body["model"]) == (200, TEXT, "chat")
        assert [server.asked for server in servers] == [2, 2, 2]


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "status", "status": 500},
        {"fault": "status", "status": 429},
        {"fault": "cut", "fault_at": 0},
        {"fault": "garbage", "fault_at": 0},
        {"fault": "error", "fault_at": 0},
        {"fault": "status", "status": 401},
    ],
    ids=lambda fault: "-".join(str(value) for value in fault.values()),
)
async def test_a_failure_before_the_first_token_stays_unseen(settings: Settings, fault: dict[str, Any]) -> None:
    async with upstreams(2, text=TEXT) as servers:
        servers[0].script.update(fault)
        async with pooled(settings, {"chat": pool_of(servers, policy="round_robin")}) as service:
            for number in range(4):
                status, body = await service.post("/v1/chat/completions", ask(seed=number))
                assert (status, text_of(body)) == (200, TEXT)
            assert await metric(service.session, service.url, "pagoda_retries_total") >= 1


async def test_a_replica_that_refuses_connections_leaves_at_once_and_comes_back(settings: Settings) -> None:
    async with (
        upstreams(2, text=TEXT) as servers,
        pooled(settings, {"chat": pool_of(servers, policy="round_robin")}) as service,
    ):
        assert (await service.post("/v1/chat/completions", ask()))[0] == 200
        await servers[0].stop()
        for number in range(6):
            status, body = await service.post("/v1/chat/completions", ask(seed=number))
            assert (status, text_of(body)) == (200, TEXT)
        before = servers[1].asked
        labels = {"pool": "chat", "replica": servers[0].name}
        assert await metric(service.session, service.url, "pagoda_replica_up", **labels) == 0
        await servers[0].start()

        async def back() -> bool:
            return await metric(service.session, service.url, "pagoda_replica_up", **labels) == 1

        for _ in range(100):
            if await back():
                break
            await asyncio.sleep(0.02)
        assert await back()
        for number in range(10, 14):
            assert (await service.post("/v1/chat/completions", ask(seed=number)))[0] == 200
        assert servers[1].asked == before + 2, "half of them go to the one that is back"


async def test_a_request_of_the_clients_own_fault_is_not_tried_again(settings: Settings) -> None:
    async with upstreams(2, text=TEXT) as servers:
        for server in servers:
            server.answer = web.Response(status=400, text='{"error": {"message": "no"}}')
        async with pooled(settings, {"chat": pool_of(servers)}) as service:
            for number in range(8):
                status, _ = await service.post("/v1/chat/completions", ask(seed=number))
                assert status == 400
            assert sum(server.asked for server in servers) == 8
            assert await metric(service.session, service.url, "pagoda_breaker_state", state="closed") == 2


async def test_when_all_replicas_are_gone_the_refusal_says_why_at_once(settings: Settings) -> None:
    async with upstreams(2, text=TEXT) as servers, pooled(settings, {"chat": pool_of(servers)}) as service:
        assert (await service.post("/v1/chat/completions", ask()))[0] == 200
        for server in servers:
            await server.stop()
        for number in range(3):
            status, body = await service.post("/v1/chat/completions", ask(seed=number))
            assert status == 503
        assert body["error"]["code"] == "no_replica"
        assert servers[0].name in body["error"]["message"]
        assert "dead" in body["error"]["message"]


async def test_a_request_waits_for_a_replica_as_long_as_its_pool_says(settings: Settings) -> None:
    async with (
        upstreams(1, text=TEXT) as servers,
        pooled(settings, {"chat": pool_of(servers, wait_seconds=10.0)}) as service,
    ):
        assert (await service.post("/v1/chat/completions", ask()))[0] == 200
        await servers[0].stop()
        await service.post("/v1/chat/completions", ask(seed=1), **{"X-Request-Timeout": "0.3"})
        waiting = asyncio.create_task(service.post("/v1/chat/completions", ask(seed=2)))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await servers[0].start()
        status, body = await waiting
        assert (status, text_of(body)) == (200, TEXT)


async def test_full_replicas_rest_for_as_long_as_they_ask(settings: Settings) -> None:
    async with (
        upstreams(2, text=TEXT) as servers,
        pooled(settings, {"chat": pool_of(servers, policy="round_robin")}) as service,
    ):
        servers[0].answer = web.Response(status=429, headers={"Retry-After": "30"})
        for number in range(6):
            assert (await service.post("/v1/chat/completions", ask(seed=number)))[0] == 200
        assert servers[0].asked == 1, "asked once, then left alone"
        labels = {"replica": servers[0].name, "state": "closed"}
        assert await metric(service.session, service.url, "pagoda_breaker_state", **labels) == 1
        servers[1].answer = web.Response(status=503, headers={"Retry-After": "20"})
        async with service.session.post(service.url + "/v1/chat/completions", json=ask(seed=99)) as response:
            assert response.status in (429, 503)
        async with service.session.post(service.url + "/v1/chat/completions", json=ask(seed=98)) as response:
            assert response.status == 429
            assert 15 <= int(response.headers["Retry-After"]) <= 20


@pytest.mark.parametrize("stream", [False, True])
async def test_another_model_stands_in_and_the_header_says_so(settings: Settings, stream: bool) -> None:
    stand_in = fake_model("small", text=" I stand in.")
    async with upstreams(1, text=TEXT) as servers:
        servers[0].script.update(fault="cut", fault_at=0)
        pools = {"chat": pool_of(servers, fallbacks=["small"])}
        async with pooled(settings, pools, stand_in, cached=True) as service:
            for _ in range(2):
                url = service.url + "/v1/chat/completions"
                async with service.session.post(url, json=ask(stream=stream)) as response:
                    assert response.status == 200
                    assert response.headers["X-Pagoda-Model"] == "small"
                    assert response.headers["X-Cache"] != "hit", "it is not kept as the answer of the other"
                    assert "stand" in await response.text()
            servers[0].script.pop("fault")
            async with service.session.post(url, json=ask(stream=stream, seed=1)) as response:
                assert response.headers["X-Pagoda-Model"] in ("chat", "small")
            assert await metric(service.session, service.url, "pagoda_fallbacks_total", model="chat", to="small") >= 2


async def test_embeddings_and_tokens_are_routed_too(settings: Settings) -> None:
    async with upstreams(2) as servers:
        pools = {
            "vectors": pool_of(servers, task="embedding", policy="round_robin"),
            "here": {"replicas": [{"model": "own", "copies": 2}]},
        }
        async with pooled(settings, pools, fake_model("own")) as service:
            servers[0].answer = web.Response(status=500)
            for number in range(4):
                status, body = await service.post("/v1/embeddings", {"model": "vectors", "input": f"text {number}"})
                assert (status, len(body["data"])) == (200, 1)
            status, body = await service.post("/tokenize", {"model": "here", "prompt": "one two three"})
            assert (status, body["count"]) == (200, 3)


async def test_copies_of_a_model_of_this_machine_are_engines_of_their_own(settings: Settings) -> None:
    own = fake_model("own", token_seconds=0.05, text=" one two three four five six")
    pools = {"here": {"replicas": [{"model": "own", "copies": 2}], "policy": "least_outstanding"}}
    async with pooled(settings, pools, own) as service:

        async def all_ready() -> None:
            states = await service.platform.states()
            assert states["own"]["state"] == states["own-2"]["state"] == "ready"
            assert states["own"]["pid"] != states["own-2"]["pid"]

        answers = await asyncio.gather(
            *(service.post("/v1/chat/completions", ask("here", seed=number)) for number in range(4))
        )
        assert [status for status, _ in answers] == [200] * 4
        states = await service.platform.states()
        await eventually(lambda: "own-2" in states)
        await asyncio.gather(
            *(service.post("/v1/chat/completions", ask("here", seed=9 + number)) for number in range(4))
        )
        await all_ready()
        assert {body["model"] for _, body in answers} == {"here"}


async def test_an_engine_asked_by_its_own_name_stands_in_its_pools_line(settings: Settings) -> None:
    slow = fake_model("slow", text=" word" * 4, token_seconds=0.05, parallel=1)
    pools = {"chat": {"replicas": [{"model": "slow"}]}}
    async with pooled(settings, pools, slow) as service:
        assert (await service.post("/v1/chat/completions", ask("chat")))[0] == 200  # its engine runs
        most = 0

        async def look() -> None:
            nonlocal most
            while True:
                most = max(most, (await service.platform.states())["slow"]["in_flight"])
                await asyncio.sleep(0.01)

        looking = asyncio.create_task(look())
        names = ("chat", "slow") * 3
        asked = [service.post("/v1/chat/completions", ask(name, seed=seed)) for seed, name in enumerate(names)]
        answers = await asyncio.gather(*asked)
        looking.cancel()
        assert [status for status, _ in answers] == [200] * 6
        assert most == 1, "both ways together, one at a time"
