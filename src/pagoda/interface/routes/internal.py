"""The door for Pagoda's own processes on this machine: the six verbs under an internal key. Not a public API."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from pagoda.core.errors import NotFound, PagodaError
from pagoda.core.types import Call, Event
from pagoda.interface.context import Backstage, Route, backstage, json_response
from pagoda.interface.problems import status_of
from pagoda.interface.sse import EventStream, while_connected
from pagoda.logic.inference.codec import REQUESTS, decode, encode, encode_error, encode_event
from pagoda.logic.inference.joined import INTERNAL_KEY_HEADER

router = APIRouter(route_class=Route, prefix="/internal/v1", include_in_schema=False)

_LEASE_BEAT_SECONDS = 5.0


def own_people(request: Request, stage: Annotated[Backstage, Depends(backstage)]) -> Backstage:
    """Only requests with the internal key come in; others see nothing here."""
    given = request.headers.get(INTERNAL_KEY_HEADER, "")
    if not stage.internal_key or not secrets.compare_digest(given.encode(), stage.internal_key.encode()):
        raise NotFound(f"There is no {request.url.path} here.")
    return stage


Stage = Annotated[Backstage, Depends(own_people)]


@router.get("/states")
async def states(stage: Stage) -> Response:
    """Engine states by model id."""
    return json_response(await stage.states())


@router.get("/lease")
async def lease(stage: Stage) -> Response:
    """Stays open for as long as the other process wants this one to live."""

    async def held() -> AsyncIterator[bytes]:
        leave = stage.lease()
        try:
            yield b"\n"
            await stage.closing.wait()
        finally:
            leave()

    return EventStream(held(), _LEASE_BEAT_SECONDS)


@router.post("/{verb}")
async def verb(verb: str, request: Request, stage: Stage) -> Response:
    """One of the six verbs."""
    if verb not in REQUESTS:
        raise NotFound(f"There is no verb {verb}.")
    payload = orjson.loads(await request.body())
    wanted, call = decode(REQUESTS[verb], payload["request"]), decode(Call, payload["call"])
    try:
        if verb != "complete":
            result = await while_connected(request, getattr(stage.inference, verb)(wanted, call))
            return Response(encode(result), media_type="application/json")
        events = stage.inference.complete(wanted, call)
        first = await while_connected(request, anext(events, None))
    except PagodaError as error:
        return Response(encode_error(error), status_of(error), media_type="application/json")
    return EventStream(_lines(events, first), stage.settings.server.keepalive_seconds)


async def _lines(events: AsyncIterator[Event], first: Event | None) -> AsyncIterator[bytes]:
    try:
        async with aclosing(events) as rest:  # type: ignore[type-var]
            if first is not None:
                yield encode_event(first)
            async for event in rest:
                yield encode_event(event)
    except PagodaError as error:
        yield encode_error(error)
