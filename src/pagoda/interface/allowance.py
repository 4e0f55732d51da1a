"""The headers that tell a limited key how it stands: ``x-ratelimit-*`` on every answer, refusals and streams too.

Plain ASGI. The slot is filled below, by whatever held the limits for this request; calls that have none leave it empty.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pagoda.service.limits.standing import SLOT


class Allowance:
    """Opens a slot for each request, and sends what is in it with the answer's headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        slot: dict[str, str] = {}

        async def told(message: Message) -> None:
            if slot and message["type"] == "http.response.start":
                said = [(name.encode(), value.encode()) for name, value in slot.items()]
                message["headers"] = [*message["headers"], *said]
            await send(message)

        token = SLOT.set(slot)
        try:
            await self._app(scope, receive, told)
        finally:
            SLOT.reset(token)
