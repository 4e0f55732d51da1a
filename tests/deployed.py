"""What stands around a Pagoda in production, for tests: nginx with our configuration, and a model that counts."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from pagoda.model.catalog.entry import ModelEntry, RemoteAddress
from pagoda.model.catalog.entry_file import write_entry
from pagoda.model.engines.fake_child import build_app
from tests.services import WAIT_SECONDS, free_port

ROOT = Path(__file__).parents[1]
ADMIN_KEY = "pk-admin-of-the-deployment-tests"
HEADERS = {"Authorization": f"Bearer {ADMIN_KEY}"}


@dataclass
class CountedModel:
    """A scripted model behind an OpenAI address that both gateways use; it knows what it was asked, and how often."""

    entry: ModelEntry
    asked: Counter[str] = field(default_factory=Counter)


@asynccontextmanager
async def counted_model(**script: Any) -> AsyncIterator[CountedModel]:
    """A model whose answer repeats the question's words, after ``fake``."""
    port = free_port()
    source = RemoteAddress(url=f"http://127.0.0.1:{port}/v1", model="counted")
    counted = CountedModel(ModelEntry(id="counted", task="chat", engine="remote", source=source, context=4096))

    @web.middleware
    async def count(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path.endswith("/completions"):
            messages = orjson.loads(await request.read()).get("messages", [])
            counted.asked[messages[-1]["content"] if messages else ""] += 1
        response: web.StreamResponse = await handler(request)
        return response

    app = build_app(script, "")
    app.middlewares.clear()  # it wants no key
    app.middlewares.append(count)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield counted
    finally:
        await runner.cleanup()


def furnish(home: Path, *models: ModelEntry) -> Path:
    """A home that knows these models."""
    entries = home / "models" / "entries"
    entries.mkdir(parents=True, exist_ok=True)
    for model in models:
        (entries / f"{model.id}.yaml").write_text(write_entry(model), encoding="utf-8")
    return home


def behind_nginx(model: str = "counted", **more: str) -> Mapping[str, str]:
    """The environment of a gateway that stands behind the proxy."""
    return {
        "PAGODA_ADMIN_KEY": ADMIN_KEY,
        "PAGODA_DEFAULTS_CHAT": model,
        "PAGODA_SERVER_TRUSTED_PROXIES": "127.0.0.1",
        "PAGODA_SERVER_DRAIN_GRACE_SECONDS": "3",
        "PAGODA_CACHE_ENABLED": "false",
        **more,
    }


def nginx_configuration(folder: Path, port: int, gateways: tuple[int, int]) -> str:
    """``deploy/nginx/nginx.conf`` with this machine's ports and folders, and nothing else changed."""
    text = (ROOT / "deploy" / "nginx" / "nginx.conf").read_text(encoding="utf-8")
    changes = {
        "listen 8080 ": f"listen 127.0.0.1:{port} ",
        "pagoda-a:8000": f"127.0.0.1:{gateways[0]}",
        "pagoda-b:8000": f"127.0.0.1:{gateways[1]}",
        "/tmp/nginx": f"{folder}/nginx",
        "/dev/stderr": f"{folder}/error.log",
        "/dev/stdout": f"{folder}/access.log",
        "worker_rlimit_nofile 65536": "worker_rlimit_nofile 1024",
        "worker_connections 16384": "worker_connections 512",
        "worker_processes auto": "worker_processes 2",
    }
    for ours, here in changes.items():
        assert ours in text, ours
        text = text.replace(ours, here)
    return text


@asynccontextmanager
async def nginx(folder: Path, gateways: tuple[int, int], *changes: tuple[str, str]) -> AsyncIterator[str]:
    """Real nginx with our configuration before two gateways; its address. ``changes`` are a test's own."""
    folder.mkdir(parents=True, exist_ok=True)
    port, file = free_port(), folder / "nginx.conf"
    text = nginx_configuration(folder, port, gateways)
    for ours, here in changes:
        assert ours in text, ours
        text = text.replace(ours, here)
    file.write_text(text, encoding="utf-8")
    command = ["nginx", "-e", str(folder / "error.log"), "-c", str(file)]
    tried = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stderr
    directives = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")  # pytest's folders are for one user
    child = subprocess.Popen([*command, "-g", directives])
    url = f"http://127.0.0.1:{port}"
    try:
        await wait_for(f"{url}/internal/up", 404)
        yield url
    finally:
        child.terminate()
        child.wait(WAIT_SECONDS)


async def wait_for(url: str, status: int, seconds: float = WAIT_SECONDS) -> None:
    """Ask until an address answers with a status."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(seconds):
        while True:
            try:
                async with session.get(url) as response:
                    if response.status == status:
                        return
            except aiohttp.ClientError:
                pass  # it does not listen yet
            await asyncio.sleep(0.02)


@dataclass
class Load:
    """Clients that ask without pause, half of them for streams, and what became of each question."""

    url: str
    sent: set[str] = field(default_factory=set)
    answered: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _stopping: bool = False

    def start(self, session: aiohttp.ClientSession, clients: int, words: int) -> None:
        """Begin: each client asks one question after another, of so many words."""
        for number in range(clients):
            self._tasks.append(asyncio.create_task(self._ask_on(session, number, words)))

    async def stop(self) -> None:
        """Ask nothing more, and wait for what was asked."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _ask_on(self, session: aiohttp.ClientSession, client: int, words: int) -> None:
        number = 0
        while not self._stopping:
            number += 1
            text = " ".join(f"q{client}x{number}w{word}" for word in range(words))
            self.sent.add(text)
            try:
                said = await ask(session, self.url, text, stream=client % 2 == 0)
            except (aiohttp.ClientError, AssertionError, ValueError) as error:
                self.wrong.append(f"{text[:20]}: {error!r}"[:300])
                continue
            if said == f"fake {text}":
                self.answered[text] += 1
            else:
                self.wrong.append(f"{text[:20]}: {said!r}"[:300])


async def ask(session: aiohttp.ClientSession, url: str, text: str, *, stream: bool) -> str:
    """The whole answer to a question. Raises ``AssertionError`` for a refusal, ``aiohttp.ClientError`` for a cut."""
    body = {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 500, "stream": stream}
    async with session.post(f"{url}/v1/chat/completions", json=body, headers=HEADERS) as response:
        raw = await response.read()
    assert response.status == 200, f"{response.status} {raw[:200]!r}"
    if not stream:
        return str(orjson.loads(raw)["choices"][0]["message"]["content"])
    frames = re.findall(rb"^data: (.+)$", raw, re.MULTILINE)
    assert frames[-1:] == [b"[DONE]"], f"the stream was cut: {raw[-200:]!r}"
    chunks = [orjson.loads(frame) for frame in frames[:-1]]
    assert not any("error" in chunk for chunk in chunks), chunks[-1]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
