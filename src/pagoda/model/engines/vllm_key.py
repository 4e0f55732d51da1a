"""ASGI middleware for vLLM's server: every path needs the engine's key; its own option guards only ``/v1``."""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_BODY = b'{"error": {"message": "Invalid API key", "type": "invalid_request_error", "code": 401}}'


class RequireKey:
    """Refuses (401) requests without ``PAGODA_ENGINE_KEY``."""

    def __init__(self, app: Callable[[Scope, Any, Send], Awaitable[None]]) -> None:
        self._app = app
        self._expected = b"Bearer " + os.environ["PAGODA_ENGINE_KEY"].encode()

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if not secrets.compare_digest(given, self._expected):
                head = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]
                await send({"type": "http.response.start", "status": 401, "headers": head})
                await send({"type": "http.response.body", "body": _BODY})
                return
        await self._app(scope, receive, send)
