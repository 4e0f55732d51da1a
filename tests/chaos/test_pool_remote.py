"""Addresses with something real behind them: llama.cpp's own server, and another Pagoda; stopped, and let go on."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from benchmarks.ground import with_engines
from pagoda.core.settings import Routing, Settings
from pagoda.model.catalog.entry_file import write_entry
from pagoda.model.engines.llamacpp import LlamaCppEngine
from tests.chaos.test_pool_real import CHAT, pid_of, pooled_real, until_up
from tests.pooled import ask
from tests.services import Service, fake_model, process
from tests.upstreams import metric

WATCH = Routing(health_seconds=0.2, silence_seconds=2.0, misses=3, open_seconds=0.3)
NOBODY = {"url": "http://127.0.0.1:9/v1", "model": "nobody"}


async def join(service: Service, **replica: str) -> str:
    """A replica that joins at run time, by its id."""
    status, answer = await service.post("/api/v1/pools/far/replicas", replica)
    assert status < 300, answer
    return str(answer["id"])


async def stop_and_go_on(service: Service, name: str, pid: int) -> None:
    """It leaves its pool when it is stopped, under a request and without one, and comes back."""
    for seed, busy in enumerate((True, False)):
        await until_up(service, name, 1, 30)
        status, answer = await service.post("/v1/chat/completions", ask("far", max_tokens=4, seed=seed))
        assert status == 200, answer
        os.kill(pid, signal.SIGSTOP)
        try:
            asking = None
            if busy:
                asking = asyncio.create_task(service.post("/v1/chat/completions", ask("far", max_tokens=4, seed=9)))
            gone = await until_up(service, name, 0, 60)
            if asking is not None:
                status, answer = await asking
                assert (status, answer["error"]["code"]) == (503, "no_replica"), answer
        finally:
            os.kill(pid, signal.SIGCONT)
        back = await until_up(service, name, 1, 60)
        print(f"busy: {busy}; left after {gone:.1f} s, back after {back:.1f} s")
    await until_answered(service)


async def until_answered(service: Service) -> None:
    end = time.monotonic() + 30
    while (found := await service.post("/v1/chat/completions", ask("far", max_tokens=4)))[0] != 200:
        assert time.monotonic() < end, found
        await asyncio.sleep(0.2)


@pytest.mark.real_model
@pytest.mark.timeout(300)
async def test_a_real_llama_cpp_server_that_is_stopped_leaves_and_comes_back(
    settings: Settings, models_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = with_engines(settings, threads=1, parallel=2, context=512)
    async with pooled_real(wanted, {"far": {"replicas": [NOBODY]}}, WATCH) as service:
        status, answer = await service.post("/v1/chat/completions", ask(CHAT, max_tokens=1))
        assert status == 200, answer
        assert service.platform._supervisor is not None
        server = service.platform._supervisor.engine_of(CHAT)
        assert isinstance(server, LlamaCppEngine)
        monkeypatch.setenv("LLAMA_KEY", server.session.headers["Authorization"].removeprefix("Bearer "))
        name = await join(service, url=server.url, model=CHAT, key_env="LLAMA_KEY")
        await stop_and_go_on(service, name, await pid_of(service, CHAT))
        assert await metric(service.session, service.url, "pagoda_attempts_total", replica=name, outcome="ok") >= 3


@pytest.mark.timeout(300)
async def test_another_pagoda_that_is_stopped_leaves_and_comes_back(settings: Settings, tmp_path: Path) -> None:
    entries = tmp_path / "models" / "entries"
    entries.mkdir(parents=True)
    (entries / "scripted.yaml").write_text(write_entry(fake_model("scripted", text="far away")), encoding="utf-8")
    with process(tmp_path) as (url, child):
        async with pooled_real(settings, {"far": {"replicas": [NOBODY]}}, WATCH) as service:
            async with service.session.post(url + "/v1/chat/completions", json=ask("scripted", max_tokens=1)) as first:
                assert first.status == 200  # a first request loads modules, and a busy machine is slow at that
            name = await join(service, url=url + "/v1", model="scripted")
            await stop_and_go_on(service, name, child.pid)
