"""Running Pagoda for tests: in this process with scripted models, or as a process of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import psutil
import uvicorn

from pagoda.application.platform import Platform
from pagoda.application.serving import bind
from pagoda.core.configuration import load_settings
from pagoda.core.settings import Settings
from pagoda.interface.app import build_app
from pagoda.model.catalog.entry import ModelEntry, Scripted
from pagoda.model.catalog.opening import open_shelf
from pagoda.service.keys.ring import KeyRing

WAIT_SECONDS = 30.0


def fake_model(name: str = "fake-chat", *, task: str = "chat", context: int | None = None, **script: Any) -> ModelEntry:
    """A scripted model."""
    return ModelEntry(
        id=name,
        task=task,  # type: ignore[arg-type]
        engine="fake",
        source=Scripted(script=script),
        context=context,
        dimensions=8 if task == "embedding" else None,
    )


@dataclass
class Service:
    """A running service in this process."""

    url: str
    platform: Platform
    session: aiohttp.ClientSession

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        """POST JSON; status and parsed answer."""
        async with self.session.post(self.url + path, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def chat(self, text: str, **fields: Any) -> tuple[int, Any]:
        """One message to the default chat model."""
        return await self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **fields})

    async def stream(self, path: str, body: Mapping[str, Any]) -> list[Any]:
        """The frames of a streamed answer: parsed JSON, and the bare word of the last."""
        frames: list[Any] = []
        async with self.session.post(self.url + path, json={**body, "stream": True}) as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "text/event-stream"
            async for line in response.content:
                if line.startswith(b"data: "):
                    data = line[6:].strip()
                    frames.append(data.decode() if data == b"[DONE]" else orjson.loads(data))
        return frames


def free_port() -> int:
    """A port of loopback that nothing uses now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def running(
    settings: Settings, models: Sequence[ModelEntry], keys: KeyRing | None = None
) -> AsyncIterator[Service]:
    """A service in this process that knows these models; the first chat and embedding models are the defaults."""
    shelf = open_shelf(settings)
    users = load_settings({}, os.environ, Path("/")).models_directory
    assert not models or settings.models_directory != users, "a test would write into the user's own catalog"
    for model in models:
        shelf.catalog.add(model, replace=True)
    chat = next((model.id for model in models if model.task != "embedding"), settings.defaults.chat)
    embedding = next((model.id for model in models if model.task == "embedding"), settings.defaults.embedding)
    defaults = dataclasses.replace(settings.defaults, chat=chat, embedding=embedding)
    settings = dataclasses.replace(settings, defaults=defaults)
    platform = Platform(settings, os.environ)
    if keys is not None:
        platform.keys = keys
    listener = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    async def start() -> None:
        await platform.start()
        platform.publish(url)

    app = build_app(platform, start, platform.stop)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none"))
    server.capture_signals = _no_signals  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        assert not task.done(), task.exception()
        await asyncio.sleep(0.005)
    async with aiohttp.ClientSession() as session:
        try:
            yield Service(url, platform, session)
        finally:
            await session.close()
            server.should_exit = True
            await task


@contextmanager
def _no_signals() -> Iterator[None]:
    yield


@contextmanager
def process(
    home: Path, *flags: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """``pagoda serve`` as a process; its address and handle. It is killed at the end if it still runs."""
    home.mkdir(parents=True, exist_ok=True)
    log = home / "serve.log"
    with log.open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "pagoda", "serve", "--port", "0", *flags],
            stdout=file,
            stderr=file,
            cwd=home,
            env={**os.environ, "PAGODA_HOME": str(home), **(environment or {})},
        )
    try:
        yield wait_for_address(log, child), child
    finally:
        child.kill()
        child.wait()


def wait_for_address(log: Path, child: subprocess.Popen[bytes]) -> str:
    """The address that a starting service announces."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        text = log.read_text()
        if found := re.search(r"ready: (http://\S+)", text):
            return found[1]
        assert child.poll() is None, f"the service ended: {text}"
        time.sleep(0.02)
    raise AssertionError(f"the service did not start: {log.read_text()}")


def children_named(word: str) -> list[psutil.Process]:
    """This process's living children, and theirs, whose command line has a word in it."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):  # it ended while we looked
            if word in " ".join(child.cmdline()):
                found.append(child)
    return found


async def eventually(condition: Any, seconds: float = 30.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.01)
