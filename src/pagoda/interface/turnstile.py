"""The way in while the service ends: who is inside, and who still gets in. It decides nothing about when to end."""

from __future__ import annotations

import asyncio

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pagoda.interface.problems import refusal

_STAYS_OPEN = ("/health", "/ready", "/metrics", "/internal/")
"""Watchers are answered to the end; what Pagoda's own processes ask belongs to work that was admitted there."""

_CLOSE = (b"connection", b"close")


class Gate:
    """What is known of the end: whether it was asked for, whether the gate is shut, and how many are inside."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        """Set once the service is to end; requests are still taken until the gate is shut."""
        self.shut = False
        self.inside = 0
        """Requests that work is done for. Reading (``GET``) is not waited for: some of it never ends."""


class Turnstile:
    """Counts who is inside; refuses (503) new work when the gate is shut; ends connections once the end is known.

    The last is for proxies: a connection that closes with an answer is one that no request can be lost on.
    """

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        gate = self._gate
        if scope["type"] != "http" or scope["method"] == "GET":
            await self._app(scope, receive, _last(send) if gate.asked.is_set() else send)
            return
        if gate.shut and not get_route_path(scope).startswith(_STAYS_OPEN):
            said = "This service is shutting down and takes no new work; ask again, another may answer."
            response = refusal(scope["path"], 503, said, "draining")
            response.headers["Retry-After"] = "1"
            await response(scope, receive, _last(send))
            return
        gate.inside += 1
        try:
            await self._app(scope, receive, _last(send) if gate.asked.is_set() else send)
        finally:
            gate.inside -= 1


def _last(send: Send) -> Send:
    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], _CLOSE]
        await send(message)

    return closing
