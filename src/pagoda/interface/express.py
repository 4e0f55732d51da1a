"""The short way to the routes that ask models: found by their path alone, called without FastAPI's dependency solver.

Routing, dependencies and error handling of the framework cost several times what Pagoda itself does with a request. The
routes stay FastAPI's own, document included; whatever is unusual about a request (another method, another type of
body) goes the framework's way. What both ways answer is the same, and a test holds them to it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette._utils import get_route_path
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pagoda.core.errors import PagodaError
from pagoda.interface.access import Access, need_of
from pagoda.interface.context import Backstage, call_by
from pagoda.interface.perimeter import header_of
from pagoda.interface.problems import problem
from pagoda.interface.sse import ClientGone

_GIVEN = ("body", "request", "stage", "call")
"""The parameters of an endpoint that can be served this way."""


class Express:
    """ASGI middleware that serves some POST routes itself and passes everything else on."""

    def __init__(self, app: ASGIApp, routers: Iterable[APIRouter], stage: Backstage, access: Access) -> None:
        self._app = app
        self._stage = stage
        self._access = access
        routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
        self._stops = {route.path: _Stop(route) for route in routes if _fits(route)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or pass it on."""
        stop = None
        if scope["type"] == "http" and scope["method"] == "POST":
            stop = self._stops.get(get_route_path(scope))
        if stop is None or not _is_json(scope):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        scope["route"], scope["endpoint"] = stop.route, stop.route.endpoint
        try:
            await self._access.admit(request, stop.need, self._stage.internal_key)
            response = await stop.serve(request, self._stage)
        except (PagodaError, RequestValidationError) as error:
            response = problem(scope["path"], error)
        except ClientGone:
            response = Response(status_code=499)
        await response(scope, receive, send)


class _Stop:
    """A route whose endpoint is called directly."""

    def __init__(self, route: APIRoute) -> None:
        self.route = route
        self._endpoint: Callable[..., Awaitable[Response]] = route.endpoint
        self.need = need_of(route.endpoint) or "admin"
        self._form: type[BaseModel] = typing.get_type_hints(route.endpoint)["body"]

    async def serve(self, request: Request, stage: Backstage) -> Response:
        """The endpoint's answer."""
        body = self._read(await body_of(request.receive))
        call = call_by(request, whole=not getattr(body, "stream", True))
        return await self._endpoint(body=body, request=request, stage=stage, call=call)

    def _read(self, raw: bytes) -> BaseModel:
        """The body in its form. Raises ``RequestValidationError`` as FastAPI words it."""
        try:
            payload: Any = orjson.loads(raw) if raw else None
        except orjson.JSONDecodeError as error:
            context = {"error": error.msg}
            wrong = {"type": "json_invalid", "loc": ("body", error.pos), "msg": "JSON decode error", "ctx": context}
            raise RequestValidationError([wrong]) from error
        if payload is None:
            missing = {"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}
            raise RequestValidationError([missing])
        try:
            return self._form.model_validate(payload, from_attributes=True)
        except ValidationError as error:
            found = error.errors(include_url=False)
            raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in found]) from error


async def body_of(receive: Receive) -> bytes:
    """A request's body, mostly one message: the framework's reader is a generator. Raises ``ClientGone``."""
    message = await receive()
    parts = [message.get("body", b"")]
    while message["type"] == "http.request" and message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
    if message["type"] != "http.request":
        raise ClientGone
    return b"".join(parts)


def _is_json(scope: Scope) -> bool:
    return (header_of(scope, b"content-type") or "").startswith("application/json")


def _fits(route: APIRoute) -> bool:
    return "POST" in (route.methods or ()) and tuple(inspect.signature(route.endpoint).parameters) == _GIVEN
