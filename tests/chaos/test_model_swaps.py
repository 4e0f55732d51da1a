"""Real models that share too little memory, and what can go wrong while they come and go."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from pagoda.core.setting_values import ByteSize
from pagoda.core.settings import Settings
from pagoda.model.catalog.entry import LocalPath, ModelEntry
from pagoda.service.supervisor import Supervisor
from tests.services import Service, children_named, eventually, fake_model, running

CHAT = "smollm2-135m-instruct"
ONE_MODEL = ByteSize(420_000_000)
"""Holds one SmolLM2 with two slots of 1024 tokens (361 MB), not two."""

pytestmark = pytest.mark.real_model


@pytest.fixture
def tight(settings: Settings) -> Settings:
    """Room for one model, short turns, quick retries."""
    engines = dataclasses.replace(
        settings.engines, memory=ONE_MODEL, context=1024, parallel=2, threads=1, swap_seconds=0.5, retry_seconds=0.05
    )
    return dataclasses.replace(settings, engines=engines)


@pytest.fixture
def weights(models_directory: Path) -> Path:
    return next((models_directory / "files" / CHAT).glob("*.gguf"))


def chat_model(name: str, path: Path) -> ModelEntry:
    return ModelEntry(id=name, task="chat", engine="llamacpp", source=LocalPath(path=str(path)))


def supervisor_of(service: Service) -> Supervisor:
    supervisor = service.platform._supervisor
    assert supervisor is not None
    return supervisor


def state_of(service: Service, model: str) -> str:
    states = supervisor_of(service).states()
    return states[model].state if model in states else "unloaded"


def engines_alive() -> list[psutil.Process]:
    return children_named("pagoda.model.engines.")


async def streamed(service: Service, model: str, tokens: int = 24) -> str:
    """A whole streamed answer, checked to its end."""
    body = {"model": model, "messages": [{"role": "user", "content": f"Count, {model}."}], "max_tokens": tokens}
    frames = await service.stream("/v1/chat/completions", body)
    assert frames[-1] == "[DONE]", frames[-1]
    assert frames[-2]["choices"][0]["finish_reason"] in ("stop", "length")
    return "".join(frame["choices"][0]["delta"].get("content") or "" for frame in frames[:-1] if frame["choices"])


async def nothing_is_left(service: Service) -> None:
    """After everything is unloaded: no memory set aside, nobody in flight, no process."""
    supervisor = supervisor_of(service)
    for model, state in supervisor.states().items():
        if state.state != "failed":
            await supervisor.unload(model)
    assert (supervisor.held.host, supervisor.held.gpu) == (0, 0)
    assert all(state.in_flight == state.waiting == 0 for state in supervisor.states().values())
    await eventually(lambda: not engines_alive())


async def test_two_models_share_memory_for_one_while_clients_stream_from_both(tight: Settings, weights: Path) -> None:
    async with running(tight, [chat_model("left", weights), chat_model("right", weights)]) as service:
        peak = [0]

        async def look() -> None:
            while True:
                peak[0] = max(peak[0], len(engines_alive()))
                assert supervisor_of(service).held.within(supervisor_of(service).budget)
                await asyncio.sleep(0.05)

        async def client(model: str) -> list[str]:
            return [await streamed(service, model) for _ in range(3)]

        watcher = asyncio.create_task(look())
        answers = await asyncio.gather(*(client(model) for model in ("left", "right") * 3))
        assert not watcher.done(), watcher.exception()
        watcher.cancel()
        assert all(text.strip() for texts in answers for text in texts), "every request has its answer"
        assert peak[0] == 1, "two engines at once do not fit"
        states = supervisor_of(service).states()
        assert states["left"].loads + states["right"].loads >= 3, "they took turns"
        await nothing_is_left(service)


async def test_two_cold_models_asked_for_at_once_are_both_answered(tight: Settings, weights: Path) -> None:
    for budget in (ONE_MODEL, ByteSize(2 * ONE_MODEL)):
        both = dataclasses.replace(tight, engines=dataclasses.replace(tight.engines, memory=budget))
        async with running(both, [chat_model("left", weights), chat_model("right", weights)]) as service:
            await asyncio.wait_for(asyncio.gather(streamed(service, "left"), streamed(service, "right")), 60)
            ready = [model for model in ("left", "right") if state_of(service, model) == "ready"]
            assert len(ready) == (1 if budget == ONE_MODEL else 2)


async def test_a_model_is_not_evicted_before_the_request_that_loaded_it(tight: Settings, weights: Path) -> None:
    """Each swap serves its request, however many want to swap back."""
    impatient = dataclasses.replace(tight, engines=dataclasses.replace(tight.engines, swap_seconds=0.0))
    async with running(impatient, [chat_model("left", weights), chat_model("right", weights)]) as service:
        await asyncio.wait_for(asyncio.gather(*(streamed(service, m, 4) for m in ("left", "right") * 6)), 100)


async def test_unload_while_streaming_lets_the_stream_finish(tight: Settings, weights: Path) -> None:
    async with running(tight, [chat_model("left", weights)]) as service:
        stream = asyncio.create_task(streamed(service, "left", 60))
        await eventually(lambda: state_of(service, "left") == "ready", 60)
        unload = asyncio.create_task(service.post("/api/v1/models/left/unload", {}))
        late = asyncio.create_task(streamed(service, "left", 4))
        assert (await stream).strip()
        status, step = await unload
        assert (status, step["stage"]) == (200, "done")
        assert (await late).strip(), "a request that came while it drained brings the model back"
        await nothing_is_left(service)


async def test_an_engine_killed_while_it_loads_says_so_and_the_next_try_works(tight: Settings, weights: Path) -> None:
    async with running(tight, [chat_model("left", weights)]) as service:
        first = asyncio.create_task(service.chat("Hello", model="left", max_tokens=2))
        while not engines_alive():
            await asyncio.sleep(0.001)
        os.kill(engines_alive()[0].pid, signal.SIGKILL)
        status, answer = await asyncio.wait_for(first, 30)
        assert (status, answer["error"]["code"]) == (503, "model_unavailable")
        assert "SIGKILL" in answer["error"]["message"]
        assert supervisor_of(service).held.host == 0
        await asyncio.sleep(0.1)  # the back-off of this test's settings
        assert (await service.chat("Hello", model="left", max_tokens=2))[0] == 200
        await nothing_is_left(service)


@pytest.mark.parametrize("fault", ["cut short", "no model", "corrupt"])
async def test_a_bad_file_fails_alone_and_once_mended_it_loads(
    tight: Settings, weights: Path, tmp_path: Path, fault: str
) -> None:
    good = weights.read_bytes()
    bad = {"cut short": good[: len(good) // 2], "no model": b"# nothing\n" * 99, "corrupt": good[:4] + b"\xff" * 4096}
    path = tmp_path / "model.gguf"
    path.write_bytes(bad[fault])
    async with running(tight, [chat_model("bad", path), chat_model("left", weights)]) as service:
        ok, refused = await asyncio.gather(streamed(service, "left", 8), service.chat("Hi", model="bad"))
        assert ok.strip()
        assert refused[0] in (400, 503)
        assert "model.gguf" in refused[1]["error"]["message"]
        shutil.copy(weights, path)
        await asyncio.sleep(0.1)  # the back-off of this test's settings
        assert (await streamed(service, "bad", 4)) is not None
        await nothing_is_left(service)


async def test_a_model_too_large_is_refused_at_once_with_figures(tight: Settings, weights: Path) -> None:
    small = dataclasses.replace(tight, engines=dataclasses.replace(tight.engines, memory=ByteSize(200_000_000)))
    async with running(small, [chat_model("left", weights), fake_model("tiny")]) as service:
        status, answer = await service.post("/api/v1/models/left/load", {})
        assert (status, answer["error"]["code"]) == (503, "insufficient_memory")
        for part in ("needs 361 MB", "weights 98.4 MB", "KV cache 94.4 MB", "budget is 200 MB"):
            assert part in answer["error"]["message"]
        assert (await service.chat("Hi", model="tiny"))[0] == 200
        assert not [child for child in engines_alive() if "llamacpp" in " ".join(child.cmdline())]


async def test_an_engine_killed_in_a_crowd_fails_only_what_it_was_computing(tight: Settings, weights: Path) -> None:
    """Two slots are computing, the rest waits: two fail with a clear error, the rest is answered after the restart."""
    async with running(tight, [chat_model("left", weights)]) as service:
        await service.chat("Hello", model="left", max_tokens=1)
        body = {"model": "left", "messages": [{"role": "user", "content": "Tell a story."}], "max_tokens": 40}
        crowd = [asyncio.create_task(service.post("/v1/chat/completions", body)) for _ in range(8)]
        await eventually(lambda: supervisor_of(service).states()["left"].in_flight == 2)
        await asyncio.sleep(0.1)
        os.kill(supervisor_of(service).states()["left"].pid or 0, signal.SIGKILL)
        answers: list[tuple[int, Any]] = await asyncio.wait_for(asyncio.gather(*crowd), 100)
        failed = [answer for status, answer in answers if status != 200]
        assert 1 <= len(failed) <= 2
        assert {answer["error"]["code"] for answer in failed} == {"engine_stopped"}
        await nothing_is_left(service)
