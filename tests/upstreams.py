"""Scripted OpenAI servers on loopback that can be made to misbehave while they run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import aiohttp
from aiohttp import web

from pagoda.model.engines.fake_child import build_app


class Upstream:
    """A server whose address stays while its manners change. ``script`` is the fake engine's, read at each request."""

    def __init__(self, script: dict[str, Any]) -> None:
        self.script = script
        self.url = ""
        self.asked = 0
        """Generations and embeddings that reached it."""
        self.answer: web.Response | None = None
        """Given instead of any answer, as a status and headers."""
        self.mute = False
        """Whether it takes requests and says nothing, health questions included."""
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def start(self) -> None:
        """Listen, at the same port as before."""
        app = build_app(self.script, "key")
        app.middlewares.insert(0, self._misbehave)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}/v1"

    async def stop(self) -> None:
        """Be gone: connections break, further ones are refused."""
        if self._runner is not None:
            server = self._runner.server
            for connection in list(server.connections) if server is not None else []:
                if connection.transport is not None:
                    connection.transport.abort()
            await self._runner.cleanup()
            self._runner = None

    @property
    def name(self) -> str:
        """The name that a pool gives it."""
        return f"127.0.0.1:{self._port}"

    @web.middleware
    async def _misbehave(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path.startswith("/v1/") and request.path != "/v1/models":
            self.asked += 1
            if self.answer is not None:
                return web.Response(
                    status=self.answer.status,
                    headers=self.answer.headers,
                    body=self.answer.body,
                )
        if self.mute:
            await asyncio.Event().wait()
        response: web.StreamResponse = await handler(request)
        return response


@asynccontextmanager
async def upstreams(count: int, **script: Any) -> AsyncIterator[list[Upstream]]:
    """Several servers that give the same answers."""
    servers = [Upstream(dict(script)) for _ in range(count)]
    for server in servers:
        await server.start()
    try:
        with patch.dict(os.environ, UPSTREAM_KEY="key"):
            yield servers
    finally:
        for server in servers:
            await server.stop()


def pool_of(servers: list[Upstream], **fields: Any) -> Mapping[str, Any]:
    """The settings of a pool of these servers, as they are written in a file."""
    replicas = [{"url": server.url, "model": "fake", "key_env": "UPSTREAM_KEY"} for server in servers]
    return {"replicas": replicas, **fields}


async def metric(session: aiohttp.ClientSession, url: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry these labels."""
    total = 0.0
    async with session.get(url + "/metrics") as response:
        for line in (await response.text()).splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == name and all(f'{key}="{text}"' in head for key, text in labels.items()):
                total += float(value)
    return total
