"""Real engines killed, orphaned, fed broken files, and services told to stop: what clients see, and what remains."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from pagoda.core.settings import Settings
from pagoda.model.catalog.entry import LocalPath, ModelEntry
from pagoda.model.catalog.opening import open_shelf
from tests.services import WAIT_SECONDS, Service, eventually, fake_model, process, running

CHAT = "smollm2-135m-instruct"
ENGINES = pytest.mark.parametrize("chat", [CHAT, "smollm2-135m-instruct-hf"], ids=["llamacpp", "transformers"])
"""The same model by each engine that runs models in a process."""
STORY = {"messages": [{"role": "user", "content": "Tell a very long story about a dragon."}], "max_tokens": 1500}


@pytest.fixture
def real(settings: Settings, models_directory: Path, tmp_path: Path) -> Settings:
    """Settings with the packaged models' files, in a directory whose entries are this test's own."""
    directory = tmp_path / "packaged"
    directory.mkdir()
    (directory / "files").symlink_to(models_directory / "files")
    return dataclasses.replace(settings, models=dataclasses.replace(settings.models, directory=str(directory)))


def engine_pid(service: Service, model: str = CHAT) -> int:
    supervisor = service.platform._supervisor
    assert supervisor is not None
    pid = supervisor.states()[model].pid
    assert pid is not None
    return pid


async def read_stream(service: Service, body: dict[str, Any], seen: list[str]) -> None:
    async with service.session.post(service.url + "/v1/chat/completions", json={**body, "stream": True}) as response:
        async for line in response.content:
            if line.startswith(b"data: "):
                seen.append(line[6:].decode().strip())


@pytest.mark.real_model
@pytest.mark.timeout(300)
@ENGINES
@pytest.mark.parametrize("stream", [True, False])
async def test_an_engine_killed_in_mid_answer_fails_that_request_alone_and_comes_back(
    real: Settings, stream: bool, chat: str
) -> None:
    async with running(
        real, [fake_model("bystander", rules=[{"contains": "slow", "token_seconds": 0.01, "text": "w " * 300}])]
    ) as service:
        body = {**STORY, "model": chat}
        seen: list[str] = []
        if stream:
            victim: asyncio.Task[Any] = asyncio.create_task(read_stream(service, body, seen))
            await eventually(lambda: len(seen) > 5, 60)
        else:
            victim = asyncio.create_task(service.post("/v1/chat/completions", body))
            supervisor = service.platform._supervisor
            assert supervisor is not None
            await eventually(lambda: chat in supervisor.states() and supervisor.states()[chat].state == "ready", 60)
            await asyncio.sleep(0.5)
        other = asyncio.create_task(service.chat("slow", model="bystander"))
        await asyncio.sleep(0.2)
        old = engine_pid(service, chat)
        os.kill(old, signal.SIGKILL)
        answer = await asyncio.wait_for(victim, 10)
        if stream:
            assert '"engine_stopped"' in seen[-1]
            assert "[DONE]" not in seen
        else:
            assert answer[0] == 503
            assert answer[1]["error"]["code"] == "engine_stopped"
        assert (await other)[0] == 200, "an engine beside it was disturbed"
        status, after = await service.chat("Hello", model=chat, max_tokens=4)
        assert status == 200, after
        assert engine_pid(service, chat) != old


@pytest.mark.real_model
@pytest.mark.timeout(300)
@ENGINES
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_slot_within_a_second(real: Settings, stream: bool, chat: str) -> None:
    async with running(real, []) as service:
        await service.chat("Hello", model=chat, max_tokens=1)
        assert service.platform._supervisor is not None
        engine = await service.platform._supervisor.load(service.platform.entry(chat, "chat"))
        body = {**STORY, "model": chat}
        if stream:
            client: asyncio.Task[Any] = asyncio.create_task(read_stream(service, body, []))
        else:
            client = asyncio.create_task(service.post("/v1/chat/completions", body))
        while (await engine.health()).running == 0:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        client.cancel()
        left = time.monotonic()
        await asyncio.gather(client, return_exceptions=True)
        while (await engine.health()).running > 0:
            assert time.monotonic() - left < 1.0
            await asyncio.sleep(0.01)


@pytest.mark.real_model
def test_engines_end_with_a_service_that_was_killed(tmp_path: Path, models_directory: Path) -> None:
    import json
    import urllib.request

    environment = {"PAGODA_MODELS_DIRECTORY": str(models_directory)}
    with process(tmp_path, environment=environment) as (url, service):
        body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}).encode()
        urllib.request.urlopen(
            urllib.request.Request(url + "/v1/chat/completions", body, {"Content-Type": "application/json"})
        ).close()
        children = psutil.Process(service.pid).children(recursive=True)
        assert [child for child in children if "llamacpp_child" in " ".join(child.cmdline())]
        service.kill()
        service.wait()
        gone, alive = psutil.wait_procs(children, timeout=5)
        assert gone
        assert not alive


async def test_a_stopped_engine_ends_with_its_parent_too(tmp_path: Path) -> None:
    """SIGSTOP keeps a process from noticing that its standard input closed; the kernel's signal still ends it."""
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from pagoda.model.engines.contract import Room\n"
        "from pagoda.model.engines.fake import Fake\n"
        "from pagoda.service.process import EngineProcess\n"
        "from tests.services import fake_model\n"
        "async def main():\n"
        "    plan = Fake().plan(fake_model(), None, Room(threads=1, parallel=1, context=0), 'key')\n"
        "    engine = EngineProcess('fake', plan, Path(sys.argv[1]) / 'engine.log')\n"
        "    await engine.start(30)\n"
        "    print(engine.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        engine = psutil.Process(int(await asyncio.to_thread(parent.stdout.readline)))
        engine.suspend()
        parent.kill()
        parent.wait()
        parent.stdout.close()
        await asyncio.to_thread(engine.wait, 5)
    finally:
        parent.kill()
        parent.wait()


async def test_an_engine_that_crashes_again_and_again_is_started_ever_later(settings: Settings) -> None:
    crashing = fake_model(rules=[{"contains": "die", "fault": "exit", "text": "a b"}])
    async with running(settings, [crashing]) as service:
        waits = []
        for _ in range(3):
            status, answer = await service.chat("die")
            assert status == 503, answer
            began = time.monotonic()
            assert (await service.chat("live"))[0] == 200
            waits.append(time.monotonic() - began)
        assert service.platform._supervisor is not None
        assert service.platform._supervisor.states()["fake-chat"].restarts == 3
        assert waits[2] > settings.engines.retry_seconds * 4


@pytest.mark.parametrize("damage", [pytest.param("cut", marks=pytest.mark.real_model), "text", "empty", "gone"])
async def test_a_broken_model_file_is_named_with_what_to_do(
    real: Settings, tmp_path: Path, models_directory: Path, damage: str
) -> None:
    shelf = open_shelf(real)
    path = tmp_path / "broken.gguf"
    if damage == "cut":
        whole = shelf.store.locate(shelf.catalog.resolve(CHAT))
        assert whole is not None
        path.write_bytes(whole.read_bytes()[:5_000_000])
    elif damage != "gone":
        path.write_bytes(b"not a model at all" if damage == "text" else b"")
    own = dataclasses.replace(real, models=dataclasses.replace(real.models, directory=str(tmp_path / "models")))
    broken = ModelEntry(id="broken", task="chat", engine="llamacpp", source=LocalPath(path=str(path)))
    async with running(own, [broken, fake_model("fine")]) as service:
        for _ in range(2):
            status, answer = await service.chat("x", model="broken")
            assert status == 503
            assert str(path) in answer["error"]["message"]
            assert len(answer["error"]["message"]) < 600
        assert (await service.chat("x", model="fine"))[0] == 200


async def test_sigterm_finishes_what_is_in_flight_refuses_new_work_and_exits_0(tmp_path: Path) -> None:
    from pagoda.model.catalog.entry_file import write_entry

    entries = tmp_path / "models" / "entries"
    entries.mkdir(parents=True)
    slow = fake_model("slow", token_seconds=0.02, text="word " * 60)
    (entries / "slow.yaml").write_text(write_entry(slow), encoding="utf-8")
    with process(tmp_path, environment={"PAGODA_DEFAULTS_CHAT": "slow"}) as (url, child):
        async with aiohttp.ClientSession() as session, aiohttp.ClientSession() as late:
            body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
            async with session.post(url + "/v1/chat/completions", json=body) as response:
                lines = aiter(response.content)
                await anext(lines)
                child.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.2)
                with pytest.raises(aiohttp.ClientConnectionError):
                    await late.post(url + "/v1/chat/completions", json=body)
                rest = [line async for line in lines]
        assert b"data: [DONE]\n" in rest
        assert sum(b'"content"' in line for line in rest) >= 50
        assert await asyncio.to_thread(child.wait, WAIT_SECONDS) == 0


def test_a_port_in_use_and_a_home_that_cannot_be_used_are_one_sentence_each(tmp_path: Path) -> None:
    def serve(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pagoda", "serve", *flags],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=60,
            check=False,
            env={**os.environ, "PAGODA_HOME": str(tmp_path), **environment},
        )

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = serve("--port", port)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"pagoda: 127.0.0.1:{port} cannot be bound")
    assert len(refused.stderr.strip().splitlines()) == 1
    (tmp_path / "file").write_text("")
    blocked = serve("--port", "0", PAGODA_HOME=str(tmp_path / "file"))
    assert blocked.returncode == 1
    assert "PAGODA_HOME" in blocked.stderr
    assert len(blocked.stderr.strip().splitlines()) == 1, blocked.stderr


async def test_a_client_that_reads_slowly_loses_nothing(settings: Settings) -> None:
    long = fake_model(text=" ".join(f"w{number}" for number in range(4000)), context=None)
    async with running(settings, [long]) as service:
        text = ""
        body = {"messages": [{"role": "user", "content": "go"}], "stream": True}
        async with service.session.post(service.url + "/v1/chat/completions", json=body) as response:
            async for block in _slowly(response):
                text += block
        assert text.count("data: ") == 4000 + 3
        assert text.endswith("data: [DONE]\n\n")


async def _slowly(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    while block := await response.content.read(8192):
        yield block.decode()
        await asyncio.sleep(0.002)
