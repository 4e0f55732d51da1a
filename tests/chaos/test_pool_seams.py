"""A replica breaks off at every frame in turn: what the client gets equals the undisturbed answer."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pagoda.core.settings import Settings
from tests.pooled import QUICK, ask, pooled, told
from tests.services import fake_model
from tests.upstreams import Upstream, metric, pool_of, upstreams

TEXT = " Once upon a time a scripted answer was of some length."
PACE = 0.003
"""Seconds a token: frames that come together with the end of their connection are never read."""
PATIENT = dataclasses.replace(QUICK, failures=10_000)
"""The same replica is to fail again and again."""

CHAT = "/v1/chat/completions"
TEXTS = "/v1/completions"


def first_to(servers: list[Upstream], **fields: Any) -> dict[str, Any]:
    """A pool whose first server gets every request first."""
    pool = dict(pool_of(servers, policy="round_robin", **fields))
    rows = [{**row, "weight": 1000.0 if place == 0 else 0.01} for place, row in enumerate(pool["replicas"])]
    return {**pool, "replicas": rows}


ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, ask()),
    "length": (CHAT, ask(max_tokens=7)),
    "stop": (CHAT, ask(stop=["scripted answer"])),
    "logprobs": (CHAT, ask(logprobs=True, top_logprobs=0)),
    "prefill": (
        CHAT,
        {
            **ask(continue_final_message=True),
            "messages": [{"role": "user", "content": "go"}, {"role": "assistant", "content": " Once upon"}],
        },
    ),
    "completion": (TEXTS, {"model": "chat", "prompt": "Tell me:", "temperature": 0, "max_tokens": 50}),
    "completion-stop": (TEXTS, {"model": "chat", "prompt": "Tell me:", "temperature": 0, "stop": [" was of"]}),
}


@pytest.mark.parametrize("fault", ["cut", "garbage", "error"])
@pytest.mark.parametrize("form", ASKED)
async def test_broken_off_at_every_frame_the_answer_is_whole(settings: Settings, form: str, fault: str) -> None:
    path, body = ASKED[form]
    body = {**body, "stream_options": {"include_usage": True}}
    async with (
        upstreams(2, text=TEXT, token_seconds=PACE, continues=True) as servers,
        pooled(settings, {"chat": first_to(servers)}, routing=PATIENT) as service,
    ):
        whole = told(await service.stream(path, body))
        assert whole["finish"] == ("length" if form == "length" else "stop")
        assert whole["usage"]["completion_tokens"] > 3
        for place in range(whole["usage"]["completion_tokens"]):
            servers[0].script.update(fault=fault, fault_at=place)
            assert told(await service.stream(path, body)) == whole, f"broken off at frame {place}"
        assert servers[1].asked >= whole["usage"]["completion_tokens"], "each was broken off, each went on"
        continued = await metric(service.session, service.url, "pagoda_continuations_total", result="tried")
        assert continued >= 0.7 * (whole["usage"]["completion_tokens"] - 1), "nearly all in mid-answer"


async def test_a_whole_answer_is_continued_too(settings: Settings) -> None:
    async with (
        upstreams(2, text=TEXT, token_seconds=PACE) as servers,
        pooled(settings, {"chat": first_to(servers)}, routing=PATIENT) as service,
    ):
        whole = (await service.post(CHAT, ask()))[1]
        servers[0].script.update(fault="cut", fault_at=5)
        status, body = await service.post(CHAT, ask(seed=1))
        assert status == 200
        assert body["choices"] == whole["choices"]
        assert body["usage"] == whole["usage"]


async def test_an_answer_that_breaks_twice_goes_on_twice(settings: Settings) -> None:
    async with (
        upstreams(3, text=TEXT, token_seconds=PACE) as servers,
        pooled(settings, {"chat": first_to(servers)}, routing=PATIENT) as service,
    ):
        body = ask(stream_options={"include_usage": True})
        whole = told(await service.stream(CHAT, body))
        for place, server in enumerate(servers[:2]):
            server.script.update(fault="cut", fault_at=4)
            assert told(await service.stream(CHAT, {**body, "seed": place})) == whole
        assert servers[2].asked >= 1


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"n": 2}, "several choices"),
        ({"response_format": {"type": "json_object"}}, "constrained"),
    ],
)
async def test_what_cannot_be_continued_ends_with_a_clear_error_frame(
    settings: Settings, fields: dict[str, Any], why: str
) -> None:
    async with (
        upstreams(2, text=TEXT, token_seconds=PACE) as servers,
        pooled(settings, {"chat": first_to(servers)}) as service,
    ):
        servers[0].script.update(fault="cut", fault_at=3)
        frames = await service.stream(CHAT, ask(**fields))
        assert frames[-1]["error"]["code"] == "stream_interrupted"
        assert why in frames[-1]["error"]["message"]


async def test_a_pool_may_choose_the_error_over_the_continuation(settings: Settings) -> None:
    async with (
        upstreams(2, text=TEXT, token_seconds=PACE) as servers,
        pooled(settings, {"chat": first_to(servers, interrupted="error")}) as service,
    ):
        servers[0].script.update(fault="cut", fault_at=3)
        frames = await service.stream(CHAT, ask())
        assert frames[-1]["error"]["code"] == "stream_interrupted"
        assert servers[1].asked == 0
        servers[0].script.update(fault_at=0)
        assert told(await service.stream(CHAT, ask(seed=2)))["text"] == TEXT, "before the first token nothing is lost"


async def test_when_nobody_is_left_to_go_on_the_stream_says_so(settings: Settings) -> None:
    async with (
        upstreams(2, text=TEXT, token_seconds=PACE) as servers,
        pooled(settings, {"chat": first_to(servers)}) as service,
    ):
        for server in servers:
            server.script.update(fault="cut", fault_at=3)
        found = told(await service.stream(CHAT, ask()))
        assert found["error"] == "stream_interrupted"
        assert TEXT.startswith(found["text"])
        assert found["text"]


async def test_engines_of_this_machine_that_die_are_followed_by_their_copies(settings: Settings) -> None:
    """Scripted child processes that end themselves with ``_exit`` in mid-answer, at every frame."""
    dying = fake_model("dying", text=TEXT, token_seconds=PACE, fault="exit", fault_at=4)
    steady = fake_model("steady", text=TEXT, token_seconds=PACE)
    rows = [{"model": "dying", "weight": 1000.0}, {"model": "steady", "weight": 0.01}]
    pools = {"chat": {"replicas": rows, "policy": "round_robin"}}
    async with pooled(settings, pools, dying, steady, routing=PATIENT) as service:
        body = ask(stream_options={"include_usage": True})
        whole = told(await service.stream(CHAT, {**body, "model": "steady"}))
        for number in range(3):
            assert (await service.post("/api/v1/models/dying/load", {}))[0] == 200
            found = told(await service.stream(CHAT, {**body, "seed": number}))
            assert found["models"] == {"chat"}
            assert found | {"models": set()} == whole | {"models": set()}
        assert await metric(service.session, service.url, "pagoda_continuations_total", pool="chat") >= 1
