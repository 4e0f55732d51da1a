"""Pools of real llama.cpp processes: stopped, at full load, killed at every frame."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from pagoda.core.settings import Routing, Settings
from pagoda.service import host
from tests.pooled import ask, pooled, told
from tests.services import Service
from tests.upstreams import metric

CHAT = "smollm2-135m-instruct"
WATCH = Routing(health_seconds=0.2, silence_seconds=1.5, misses=3, open_seconds=0.3, failures=1000)
pytestmark = pytest.mark.real_model


@asynccontextmanager
async def twins(
    settings: Settings, models_directory: Path, routing: Routing = WATCH, context: int = 1024, **fields: Any
) -> AsyncIterator[Service]:
    """Two engines of the packaged model, both ready."""
    settings = dataclasses.replace(
        settings,
        models=dataclasses.replace(settings.models, directory=str(models_directory)),
        engines=dataclasses.replace(settings.engines, threads=1, parallel=2, context=context),
    )
    pool = {"replicas": [{"model": CHAT, "copies": 2}], "policy": "round_robin", **fields}
    async with pooled_real(settings, {"twins": pool}, routing) as service:
        await asyncio.gather(*(service.post("/v1/chat/completions", ask("twins", max_tokens=2)) for _ in range(2)))
        for _ in range(600):
            states = await service.platform.states()
            if all(states.get(name, {}).get("state") == "ready" for name in (CHAT, f"{CHAT}-2")):
                break
            await asyncio.sleep(0.05)
        yield service


@asynccontextmanager
async def pooled_real(settings: Settings, pools: dict[str, Any], routing: Routing) -> AsyncIterator[Service]:
    async with pooled(settings, pools, routing=routing, scripted=False) as service:
        yield service


async def pid_of(service: Service, name: str) -> int:
    return int((await service.platform.states())[name]["pid"])


async def up(service: Service, name: str) -> float:
    return await metric(service.session, service.url, "pagoda_replica_up", replica=name)


async def until_up(service: Service, name: str, wanted: float, seconds: float) -> float:
    """Seconds until the replica is (or is not) in its pool."""
    began = time.monotonic()
    while await up(service, name) != wanted:
        assert time.monotonic() - began < seconds, f"{name} did not change to {wanted} in {seconds} s"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


@pytest.mark.timeout(300)
async def test_a_stopped_engine_leaves_and_comes_back_while_a_busy_one_stays(
    settings: Settings, models_directory: Path
) -> None:
    first, second = CHAT, f"{CHAT}-2"
    async with twins(settings, models_directory) as service:
        stopped = await pid_of(service, first)
        enough = asyncio.Event()

        async def load() -> list[int]:
            """Two long answers at a time, for as long as it takes."""
            statuses: list[int] = []
            while not enough.is_set():
                body = ask("twins", max_tokens=200, seed=len(statuses))
                body["messages"] = [{"role": "user", "content": "Tell me a very long story about the sea. " * 8}]
                statuses.append((await service.post("/v1/chat/completions", body))[0])
            return statuses

        clients = [asyncio.create_task(load()) for _ in range(4)]
        try:
            await asyncio.sleep(1.0)
            os.kill(stopped, signal.SIGSTOP)
            gone = await until_up(service, first, 0, 100)
            for _ in range(30):  # the other now carries all of the load
                assert await up(service, second) == 1
                await asyncio.sleep(0.1)
            os.kill(stopped, signal.SIGCONT)
            back = await until_up(service, first, 1, 60)
        finally:
            os.kill(stopped, signal.SIGCONT)
            enough.set()
        answered = [status for statuses in await asyncio.gather(*clients) for status in statuses]
        assert answered
        assert set(answered) == {200}, "what the stopped one had begun went on at the other"
        assert await up(service, second) == 1
        print(f"left after {gone:.1f} s, back after {back:.1f} s, {len(answered)} answers")


async def streamed(service: Service, path: str, body: dict[str, Any], kill_at: int | None) -> list[Any]:
    """The frames of an answer; the process that gives it is killed after so many frames with text."""
    frames: list[Any] = []
    texts = 0
    async with service.session.post(service.url + path, json={**body, "stream": True}) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            if not line.startswith(b"data: "):
                continue
            data = line[6:].strip()
            frames.append(data.decode() if data == b"[DONE]" else orjson.loads(data))
            if isinstance(frames[-1], dict) and "choices" in frames[-1] and frames[-1]["choices"]:
                choice = frames[-1]["choices"][0]
                texts += bool(choice.get("text") or (choice.get("delta") or {}).get("content"))
            if kill_at is not None and texts == kill_at:
                os.kill(await busy_pid(service), signal.SIGKILL)
                kill_at = None
    return frames


async def busy_pid(service: Service) -> int:
    states = await service.platform.states()
    return next(int(states[name]["pid"]) for name in (CHAT, f"{CHAT}-2") if states[name]["in_flight"])


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (
        "/v1/chat/completions",
        {**ask("twins", max_tokens=16), "messages": [{"role": "user", "content": "What is gravity? One sentence."}]},
    ),
    "stop": (
        "/v1/chat/completions",
        {
            **ask("twins", max_tokens=40, stop=["the curvature", "attract"]),
            "messages": [{"role": "user", "content": "What is gravity? One sentence."}],
        },
    ),
    "length": (
        "/v1/completions",
        {"model": "twins", "prompt": "The capital of France is", "max_tokens": 14, "temperature": 0},
    ),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("form", ["chat", "length", "stop"])
async def test_killed_at_every_frame_greedy_text_usage_and_end_are_the_undisturbed_answers(
    settings: Settings, models_directory: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_LONGEST_BACKOFF_SECONDS", 0.2)  # they are killed more often than engines crash
    path, body = FORMS[form]
    body = {**body, "stream_options": {"include_usage": True}}
    async with twins(settings, models_directory) as service:
        whole = told(await streamed(service, path, body, None))
        count = whole["usage"]["completion_tokens"]
        assert whole["finish"] == ("stop" if form == "stop" else "length")
        # Every kill is a start of an engine: one form at every frame, the others at every fourth (scripted: at all).
        for place in range(1, count, 1 if form == "length" else 4):
            for name in (CHAT, f"{CHAT}-2"):
                await until_up(service, name, 1, 60)
            found = told(await streamed(service, path, body, place))
            assert found == whole, place
        continued = await metric(service.session, service.url, "pagoda_continuations_total", result="tried")
        assert continued >= 0.5 * (count if form == "length" else count / 4)


@pytest.mark.timeout(300)
async def test_an_engine_that_reads_a_long_prompt_is_busy_and_not_wedged(
    settings: Settings, models_directory: Path
) -> None:
    """llama.cpp answers nothing while it reads, not even a question after its health."""
    routing = Routing(health_seconds=0.1, silence_seconds=0.2, misses=3)
    prompt = " ".join(f"{number}: of rivers the old books say little." for number in range(60))
    async with twins(settings, models_directory, routing, context=2048) as service:
        for seed in range(2):
            body = ask("twins", max_tokens=2)
            body["messages"] = [{"role": "user", "content": f"{seed}. {prompt}"}]
            status, answer = await service.post("/v1/chat/completions", body)
            assert (status, answer["usage"]["prompt_tokens"] > 500) == (200, True), answer
        assert await metric(service.session, service.url, "pagoda_retries_total") == 0
        assert await metric(service.session, service.url, "pagoda_attempts_total", outcome="ok") >= 4
