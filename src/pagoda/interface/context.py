"""What routes need of the application, and the ``Call`` that each request becomes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from pagoda.core.errors import InvalidRequest
from pagoda.core.ports import Inference
from pagoda.core.runs import Runs
from pagoda.core.settings import Settings
from pagoda.core.types import Call
from pagoda.interface.sse import ClientGone
from pagoda.model.catalog.entry import ModelEntry
from pagoda.service.telemetry import Telemetry

_LONGEST_TIMEOUT_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """A catalog entry with what is known of its files and engine."""

    entry: ModelEntry
    state: str
    reason: str
    aliases: tuple[str, ...]


class Backstage(Protocol):
    """What the application hands to the interface."""

    settings: Settings
    inference: Inference
    telemetry: Telemetry
    runs: Runs
    internal_key: str
    """Which the requests of Pagoda's own processes carry; empty where there is no engine to join."""
    closing: asyncio.Event
    """Set when the service has begun to shut down: no new work is taken, and what only waits should end."""

    def entry(self, name: str | None, task: str) -> ModelEntry:
        """The model of that name, or the default of the task when there is none. Raises ``NotFound``."""
        ...

    async def models(self) -> Sequence[ModelStatus]:
        """All models as they are now."""
        ...

    async def states(self) -> dict[str, Any]:
        """Engine states by model id, as JSON."""
        ...

    def lease(self) -> Callable[[], None]:
        """Note that another process has joined; the result is called when it leaves."""
        ...


def backstage(request: Request) -> Backstage:
    """The application behind a request."""
    found: Backstage = request.app.state.backstage
    return found


def call_of(request: Request) -> Call:
    """Who asks and within which bounds. Raises ``InvalidRequest`` for a timeout that is no number of seconds."""
    deadline = None
    if given := request.headers.get("x-request-timeout"):
        try:
            seconds = float(given)
        except ValueError:
            seconds = -1.0
        if not 0 < seconds <= _LONGEST_TIMEOUT_SECONDS:
            raise InvalidRequest("X-Request-Timeout must be a number of seconds above 0.", param="X-Request-Timeout")
        deadline = time.time() + seconds
    return Call(request_id=request.state.request_id, deadline=deadline)


class _Request(Request):
    """JSON by orjson, which refuses NaN and lone surrogates that nothing below could carry."""

    async def json(self) -> Any:
        """The parsed body."""
        if not hasattr(self, "_json"):
            self._json = orjson.loads(await self.body())
        return self._json


class Route(APIRoute):
    """A route whose requests are parsed by orjson, and whose client may leave."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's hook for custom requests."""
        handler: Callable[[Request], Awaitable[Response]] = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(_Request(request.scope, request.receive))
            except ClientGone:
                return Response(status_code=499)

        return handle


def json_response(value: Any, headers: dict[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(orjson.dumps(value), media_type="application/json", headers=headers)
