"""The response cache through the API: what hits, what does not, what a hit looks like, one engine call for many."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
import pytest
import pytest_asyncio

from pagoda.core.settings import Settings
from tests.services import Service, eventually, fake_model, running

CHAT = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
MODELS = (
    fake_model(
        rules=[
            {"contains": "slow", "token_seconds": 0.03, "text": "word " * 30},
            {"contains": "endless", "token_seconds": 0.03, "text": "word " * 3000},
            {"contains": "late", "first_seconds": 0.3, "text": "at last"},
            {"contains": "broken form", "text": '{"age": "seven"}'},
            {"contains": "ponder", "text": "<think>\nLet me see, two and two.\n</think>\n\nIt is four."},
            {"contains": "cut here", "fault": "cut", "fault_at": 2, "text": "one two three four"},
        ]
    ),
    fake_model("other", text="other words"),
    fake_model("fake-embed", task="embedding"),
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_service(module_settings: Settings) -> AsyncIterator[Service]:
    routes = {"/v1/completions": "never", "/generate": "always"}
    cache = dataclasses.replace(module_settings.cache, routes=routes)
    async with running(dataclasses.replace(module_settings, cache=cache), MODELS) as service:
        yield service


@pytest_asyncio.fixture(loop_scope="module")
async def service(running_service: Service) -> Service:
    """The service with an empty cache."""
    async with running_service.session.delete(running_service.url + "/api/v1/cache") as response:
        assert response.status == 200
    return running_service


async def ask(service: Service, path: str, body: Mapping[str, Any], **headers: str) -> tuple[int, str, Any]:
    """Status, X-Cache and answer."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with service.session.post(service.url + path, json=body, headers=sent) as response:
        raw = await response.read()
        streamed = response.content_type == "text/event-stream"
        return response.status, response.headers.get("X-Cache", ""), frames(raw) if streamed else orjson.loads(raw)


def frames(raw: bytes) -> list[Any]:
    """The frames of a stream without what is new in every answer."""
    found = []
    for line in raw.split(b"\n"):
        if line.startswith(b"data: {"):
            payload = orjson.loads(line[6:])
            found.append({key: value for key, value in payload.items() if key not in ("id", "created")})
    return found


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, **fields}


async def computed(service: Service, model: str = "fake-chat") -> int:
    """Tokens that the engine has written so far."""
    platform = service.platform
    supervisor = platform._supervisor
    assert supervisor is not None
    return (await (await supervisor.load(platform.entry(model, "chat"))).health()).progress


async def test_an_equal_request_is_answered_again_without_the_engine(service: Service) -> None:
    status, first_use, first = await ask(service, CHAT, chat("hello there"))
    before = await computed(service)
    again_status, second_use, second = await ask(service, CHAT, chat("hello there"))
    assert (status, again_status, first_use, second_use) == (200, 200, "miss", "hit")
    assert first["id"] != second["id"]
    assert first["choices"] == second["choices"]
    assert first["usage"] == second["usage"]
    assert first["system_fingerprint"] == second["system_fingerprint"] == "fake"
    assert await computed(service) == before


async def test_the_order_of_keys_and_aliases_do_not_matter_but_text_does(service: Service) -> None:
    body = {"messages": [{"role": "user", "content": "x y"}], "temperature": 0, "seed": 1}
    turned = {"seed": 1, "temperature": 0, "messages": [{"content": "x y", "role": "user"}]}
    assert (await ask(service, CHAT, body))[1] == "miss"
    assert (await ask(service, CHAT, turned))[1] == "hit"
    assert (await ask(service, CHAT, {**turned, "model": "fake-chat"}))[1] == "hit"
    for change in ({"seed": 2}, {"max_tokens": 1}, {"stop": "z"}, {"model": "other"}, {"temperature": 0.5}):
        assert (await ask(service, CHAT, {**body, **change}))[1] == "miss", change
    assert (await ask(service, CHAT, chat("x y ", seed=1)))[1] == "miss"


async def test_a_streamed_hit_has_the_same_frames(service: Service) -> None:
    body = chat("one two three", stream=True, stream_options={"include_usage": True})
    _, first_use, first = await ask(service, CHAT, body)
    _, second_use, second = await ask(service, CHAT, body)
    assert (first_use, second_use) == ("miss", "hit")
    assert first == second
    assert len(first) > 5
    assert (await ask(service, CHAT, chat("one two three")))[1] == "hit", "whole or streamed is the same answer"


@pytest.mark.parametrize("text", ["hello whole world", "ponder"])
async def test_a_whole_hit_says_and_counts_the_same(service: Service, text: str) -> None:
    _, first_use, first = await ask(service, CHAT, chat(text))
    _, second_use, second = await ask(service, CHAT, chat(text))
    assert (first_use, second_use) == ("miss", "hit")
    assert first["choices"] == second["choices"]
    assert first["usage"] == second["usage"]
    assert ("completion_tokens_details" in first["usage"]) == (text == "ponder")


async def test_log_probabilities_come_again_exactly(service: Service) -> None:
    body = chat("a b", logprobs=True, top_logprobs=2)
    first, second = await ask(service, CHAT, body), await ask(service, CHAT, body)
    assert (first[1], second[1]) == ("miss", "hit")
    assert first[2]["choices"] == second[2]["choices"]


async def test_what_is_drawn_at_random_is_cached_only_when_asked_for(service: Service) -> None:
    drawn = chat("one two three four five six seven eight", temperature=1)
    assert [(await ask(service, CHAT, drawn))[1] for _ in range(2)] == ["bypass", "bypass"]
    wish = {"Cache_Control": "pagoda-cache"}
    first, second = await ask(service, CHAT, drawn, **wish), await ask(service, CHAT, drawn, **wish)
    assert (first[1], second[1]) == ("miss", "hit")
    assert first[2]["choices"] == second[2]["choices"]
    assert [(await ask(service, CHAT, {**drawn, "seed": 3}))[1] for _ in range(2)] == ["miss", "hit"]
    assert [(await ask(service, CHAT, chat("x", n=2)))[1] for _ in range(2)] == ["bypass", "bypass"]


async def test_cache_control_is_honoured(service: Service) -> None:
    body = chat("controlled")
    status, _, answer = await ask(service, CHAT, body, Cache_Control="only-if-cached")
    assert (status, answer["error"]["code"]) == (504, "not_cached")
    assert (await ask(service, CHAT, body, Cache_Control="no-store"))[1] == "bypass"
    assert (await ask(service, CHAT, body))[1] == "miss", "no-store keeps nothing"
    assert (await ask(service, CHAT, body, Cache_Control="only-if-cached"))[1] == "hit"
    assert (await ask(service, CHAT, body, Cache_Control="max-age=100"))[1] == "hit"
    assert (await ask(service, CHAT, body, Cache_Control="no-cache"))[1] == "miss"
    assert (await ask(service, CHAT, body, Cache_Control="max-age=0"))[1] == "miss"
    assert (await ask(service, CHAT, body, Cache_Control="no-transform"))[1] == "hit"
    for wrong in ("max-age=soon", "no-cache, only-if-cached"):
        status, _, answer = await ask(service, CHAT, body, Cache_Control=wrong)
        assert (status, answer["error"]["param"]) == (400, "Cache-Control")


async def test_routes_have_their_own_rules(service: Service) -> None:
    text = {"model": "other", "prompt": "x", "temperature": 0}
    assert [(await ask(service, "/v1/completions", text))[1] for _ in range(2)] == ["bypass", "bypass"]
    drawn = {"prompt": "a b c d e f g h", "temperature": 1}
    assert [(await ask(service, "/generate", drawn))[1] for _ in range(2)] == ["miss", "hit"]


async def test_embeddings_are_cached(service: Service) -> None:
    body = {"input": ["a", "b"]}
    first = await ask(service, "/v1/embeddings", body)
    second = await ask(service, "/v1/embeddings", {**body, "encoding_format": "float"})
    assert (first[1], second[1]) == ("miss", "hit")
    assert first[2] == second[2]
    assert (await ask(service, "/v1/embeddings", {"input": ["b", "a"]}))[1] == "miss"
    assert (await ask(service, "/v1/embeddings", {**body, "input_type": "query"}))[1] == "miss"


async def test_a_hundred_equal_requests_are_one_engine_call(service: Service) -> None:
    before = await computed(service)
    got = await asyncio.gather(*(ask(service, CHAT, chat("late hundred", stream=bool(i % 2))) for i in range(100)))
    assert [status for status, _, _ in got] == [200] * 100
    assert sorted(use for _, use, _ in got) == ["hit"] * 99 + ["miss"]
    assert await computed(service) - before == 2, "the two tokens of one answer"
    whole = [answer["choices"][0]["message"]["content"] for _, _, answer in got[::2]]
    streamed = ["".join(f["choices"][0]["delta"].get("content", "") for f in answer) for _, _, answer in got[1::2]]
    assert set(whole) | set(streamed) == {"at last"}


async def test_the_work_goes_on_when_the_first_leaves_and_ends_when_all_have(service: Service) -> None:
    session = service.session
    first = await session.post(service.url + CHAT, json=chat("slow one", stream=True))
    await first.content.readuntil(b"word")
    second = asyncio.ensure_future(ask(service, CHAT, chat("slow one")))
    await eventually(lambda: _waiting(service) == [2])
    first.close()
    status, use, answer = await second
    assert (status, use) == (200, "hit")
    assert answer["choices"][0]["message"]["content"] == "word " * 30
    left = [await session.post(service.url + CHAT, json=chat("endless", stream=True)) for _ in range(3)]
    for response in left:
        await response.content.readuntil(b"word")
        response.close()
    await eventually(lambda: _waiting(service) == [])
    engine_platform = service.platform
    supervisor = engine_platform._supervisor
    assert supervisor is not None
    engine = await supervisor.load(engine_platform.entry("fake-chat", "chat"))
    for _ in range(200):
        if (await engine.health()).running == 0:
            break
        await asyncio.sleep(0.02)
    else:
        raise AssertionError("the engine still computes for nobody")
    assert (await ask(service, CHAT, chat("endless", max_tokens=3)))[1] == "miss"


def _waiting(service: Service) -> list[int]:
    """How many wait for each piece of work."""
    cache = service.platform._cache
    assert cache is not None
    return [flight.waiting for _, flight in cache._flights.values()]


async def test_an_error_goes_to_all_and_is_not_kept(service: Service) -> None:
    got = await asyncio.gather(*(ask(service, CHAT, chat("cut here")) for _ in range(5)))
    assert {status for status, _, _ in got} == {503}
    status, use, _ = await ask(service, CHAT, chat("cut here"), Cache_Control="only-if-cached")
    assert (status, use) == (504, "")


async def test_each_waits_until_its_own_deadline(service: Service) -> None:
    patient = asyncio.ensure_future(ask(service, CHAT, chat("late deadline"), X_Request_Timeout="20"))
    await eventually(lambda: _waiting(service) == [1])
    hasty = await ask(service, CHAT, chat("late deadline"), X_Request_Timeout="0.05")
    assert hasty[0] == 504
    assert (await patient)[0] == 200
    hasty_first = asyncio.ensure_future(ask(service, CHAT, chat("late again"), X_Request_Timeout="0.1"))
    await eventually(lambda: _waiting(service) == [1])
    after = await ask(service, CHAT, chat("late again"))
    assert (await hasty_first)[0] == 504
    assert (after[0], after[1]) == (200, "hit"), "the work outlives the deadline of the one that began it"


async def test_output_checks_run_again_on_replay(service: Service) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
    for _ in range(2):
        status, _, answer = await ask(service, CHAT, chat("broken form", response_format=form))
        assert (status, answer["error"]["code"]) == (502, "schema_violation")
    status, use, answer = await ask(service, CHAT, chat("broken form", response_format=form, stream=True))
    assert (status, use) == (200, "hit")
    assert answer[-1]["error"]["code"] == "schema_violation"


async def test_purge_by_model_and_all_also_reaches_answers_on_their_way(service: Service) -> None:
    await ask(service, CHAT, chat("a"))
    await ask(service, CHAT, chat("a", model="other"))
    await ask(service, CHAT, chat("b", model="other"))
    async with service.session.get(service.url + "/api/v1/cache") as response:
        state = await response.json()
    assert (state["kind"], state["working"], state["entries"]) == ("embedded", True, 3)
    assert 0 < state["bytes"] < 10_000
    on_its_way = asyncio.ensure_future(ask(service, CHAT, chat("late purge")))
    await eventually(lambda: _waiting(service) == [1])
    async with service.session.delete(service.url + "/api/v1/cache", params={"model": "other"}) as response:
        purged = await response.json()
        assert purged["entries"] == 2
        assert 0 < purged["bytes"] < state["bytes"]
    async with service.session.delete(service.url + "/api/v1/cache") as response:
        assert (await response.json())["entries"] == 1
    assert (await on_its_way)[0] == 200
    assert (await ask(service, CHAT, chat("late purge"), Cache_Control="only-if-cached"))[0] == 504
    async with service.session.delete(service.url + "/api/v1/cache", params={"model": "nobody"}) as response:
        assert response.status == 404


async def test_a_hit_needs_no_engine(settings: Settings) -> None:
    """An engine that stopped, or was never started, is not started for it."""
    async with running(settings, MODELS) as service:
        assert (await ask(service, CHAT, chat("hi")))[1] == "miss"
        supervisor = service.platform._supervisor
        assert supervisor is not None
        await supervisor.close()
        assert (await ask(service, CHAT, chat("hi")))[1] == "hit"
        assert supervisor.states() == {}


async def test_metrics_tell_hits_misses_and_bypasses(service: Service) -> None:
    for wish in ("", "", "no-store"):
        await ask(service, CHAT, chat("metric"), Cache_Control=wish)
    async with service.session.get(service.url + "/metrics") as response:
        text = await response.text()
    for result in ("hit", "miss", "bypass"):
        assert f'pagoda_cache_requests_total{{model="fake-chat",result="{result}"}}' in text
    assert 'pagoda_cache_events_total{event="kept"}' in text
    assert "pagoda_cache_store_up 1.0" in text
    assert "pagoda_cache_bytes" in text


async def test_a_cache_that_is_switched_off_keeps_nothing(settings: Settings) -> None:
    off = dataclasses.replace(settings, cache=dataclasses.replace(settings.cache, enabled=False))
    async with running(off, MODELS) as service:
        assert [(await ask(service, CHAT, chat("x")))[1] for _ in range(2)] == ["bypass", "bypass"]
        assert (await ask(service, CHAT, chat("x"), Cache_Control="only-if-cached"))[0] == 504
