"""A day in little: two Pagodas, pools that work, stumble and are gone, keys, and clients of all kinds."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from pagoda.core.configuration import load_settings
from tests.services import free_port, process
from tests.upstreams import Upstream, upstreams

CHAT, EMBEDDING = "smollm2-135m-instruct", "multilingual-e5-small"
logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # it tells of every cut that was scripted
_SHARED = "You answer the guests of a tea house on a mountain, politely and in one sentence. "
_SUBJECTS = ("tea", "rain", "stone", "bread", "music", "ships", "bees", "snow", "clay", "maps")
_REPLICA = '[[pools.{pool}.replicas]]\nurl = "{url}"\nmodel = "fake"\nkey_env = "UPSTREAM_KEY"\n'
_SETTINGS = """
[models]
directory = "{models}"

[engines]
parallel = 2

[admission]
queue = 4

[prices.models]
"*" = "150/75/600"

[pools.team]
policy = "least_outstanding"

[pools.shaky]
policy = "round_robin"

[pools.gone]
wait_seconds = 0

[pools.lost]
wait_seconds = 0
fallbacks = ["{chat}"]
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """Two running Pagodas, and the secrets of keys for them."""

    urls: tuple[str, str]
    monitor: str
    app: str
    narrow: str


def _command(home: Path, *words: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "pagoda", *words, "--json"],
        env={**os.environ, "PAGODA_HOME": str(home)},
        cwd=home,
        capture_output=True,
        check=True,
        text=True,
    )
    return json.loads(done.stdout)


def _secret(home: Path, name: str, *flags: str) -> str:
    secret: str = _command(home, "keys", "create", "--name", name, *flags)["secret"]
    return secret


def _write_settings(home: Path, good: list[Upstream], shaky: list[Upstream]) -> None:
    models = load_settings({}, os.environ, Path("/")).models_directory
    text = _SETTINGS.format(models=models, chat=CHAT)
    lost = f"http://127.0.0.1:{free_port()}/v1"
    for pool, urls in (
        ("team", [server.url for server in good]),
        ("shaky", [server.url for server in shaky]),
        ("lost", [lost]),
        ("gone", [lost]),
    ):
        text += "\n" + "\n".join(_REPLICA.format(pool=pool, url=url) for url in urls)
    (home / "pagoda.toml").write_text(text, encoding="utf-8")


@contextmanager
def _pagoda(home: Path, environment: Mapping[str, str]) -> Iterator[str]:
    with process(home, environment=environment) as (url, _):
        yield url


@asynccontextmanager
async def scene(folder: Path, environment: Mapping[str, str] | None = None) -> AsyncIterator[Scene]:
    """Two Pagodas of a home each, on one set of scripted upstreams."""
    async with AsyncExitStack() as stack:
        good = await stack.enter_async_context(upstreams(2, token_seconds=0.01, text="A word on what was asked. " * 4))
        stumbling = {
            "rules": [{"contains": "stumble", "fault": "cut", "fault_at": 3, "text": "one two three four five"}]
        }
        shaky = await stack.enter_async_context(upstreams(1, **stumbling))
        shaky += await stack.enter_async_context(upstreams(1, text="one two three four five six"))
        homes = (folder / "a", folder / "b")
        secrets: dict[str, str] = {}
        urls = []
        for home in homes:
            home.mkdir(parents=True)
            _write_settings(home, good, shaky)
            await asyncio.to_thread(_furnish, home, secrets)
            wanted = {"PAGODA_ADMIN_KEY": "an-admin-key-of-the-scene", **(environment or {})}
            urls.append(stack.enter_context(_pagoda(home, wanted)))
        yield Scene((urls[0], urls[1]), secrets["monitor"], secrets["app"], secrets["narrow"])


def _furnish(home: Path, secrets: dict[str, str]) -> None:
    """The same keys in both homes: the second gets a copy of the first's records."""
    if secrets:
        for place in (home.parent / "a").glob("pagoda.db*"):
            (home / place.name).write_bytes(place.read_bytes())
        return
    secrets["monitor"] = _secret(home, "monitor", "--scopes", "monitor")
    secrets["app"] = _secret(home, "app", "--team", "shop")
    secrets["narrow"] = _secret(home, "narrow", "--team", "garden", "--rpm", "1")
    _command(home, "keys", "team", "shop", "--budget", "50", "--budget-tokens", "1000000")


async def clients(place: Scene, session: aiohttp.ClientSession) -> None:
    """All kinds of clients, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for url in place.urls:
            ask = _Asker(session, url, place.app)
            group.create_task(_again(ask.talk, 0.05))
            group.create_task(_again(ask.talk, 0.2))
            group.create_task(_again(ask.repeat, 0.3))
            group.create_task(_again(ask.embed, 0.5))
            group.create_task(_again(ask.pools, 0.5))
            group.create_task(_again(ask.crowd, 5.0))
            group.create_task(_again(_Asker(session, url, place.narrow).repeat, 1.0))
            group.create_task(_again(_Asker(session, url, "pk-nobody").repeat, 2.0))


async def _again(what: Callable[[], Awaitable[None]], pause: float) -> None:
    while True:
        await what()
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))


class _Asker:
    """A client with a key."""

    def __init__(self, session: aiohttp.ClientSession, url: str, secret: str) -> None:
        self._session = session
        self._url = url
        self._secret = secret

    async def _post(self, path: str, body: dict[str, Any], **headers: str) -> None:
        headers = {"Authorization": f"Bearer {self._secret}", **headers}
        try:
            async with self._session.post(self._url + path, json=body, headers=headers) as response:
                await response.read()
        except aiohttp.ClientPayloadError:
            return  # a stream that was cut is part of the scene

    async def _chat(self, text: str, model: str = CHAT, tokens: int = 24, **fields: Any) -> None:
        messages = [{"role": "system", "content": _SHARED}, {"role": "user", "content": text}]
        body = {"model": model, "messages": messages, "max_tokens": tokens, **fields}
        await self._post("/v1/chat/completions", body)

    async def talk(self) -> None:
        """A stream of a real model."""
        await self._chat(f"Say something about {random.choice(_SUBJECTS)}.", stream=True, temperature=0.8)

    async def repeat(self) -> None:
        """What has been asked before."""
        await self._chat("What is tea?", tokens=8, temperature=0)

    async def embed(self) -> None:
        """A vector."""
        await self._post("/v1/embeddings", {"model": EMBEDDING, "input": f"about {random.choice(_SUBJECTS)}"})

    async def pools(self) -> None:
        """Models of several replicas, one of which stumbles, and one that has none left."""
        await self._chat("Say a word.", model="team", stream=True, temperature=0.5)
        await self._chat(f"Do not stumble {random.random()}.", model="shaky", stream=True, temperature=0)
        await self._chat("Is anybody there?", model="lost", tokens=4, temperature=0.5)
        await self._chat("Is anybody here?", model="gone", tokens=4, temperature=0.5)

    async def crowd(self) -> None:
        """More at once than there is room for."""
        body = {"model": CHAT, "messages": [{"role": "user", "content": "Count."}], "max_tokens": 8, "temperature": 1}
        await asyncio.gather(
            *(self._post("/v1/chat/completions", body, **{"X-Request-Priority": "batch"}) for _ in range(10))
        )
