"""The door for Pagoda's own processes on this machine: the seven verbs under an internal key. Not a public API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from pagoda.core.errors import NotFound, PagodaError
from pagoda.core.types import Call, Event
from pagoda.interface.access import needs
from pagoda.interface.answered import is_replayed
from pagoda.interface.context import Backstage, Route, backstage, json_response
from pagoda.interface.problems import status_of
from pagoda.interface.sse import EventStream, while_connected
from pagoda.logic.inference.codec import REQUESTS, decode, encode, encode_error, encode_event
from pagoda.service.fleet import from_wire
from pagoda.service.lifecycle import Order
from pagoda.service.routing.steering import PoolOrder

router = APIRouter(route_class=Route, prefix="/internal/v1", include_in_schema=False)

_LEASE_BEAT_SECONDS = 5.0


Stage = Annotated[Backstage, Depends(backstage)]


@router.get("/states")
@needs("internal")
async def states(stage: Stage) -> Response:
    """Engine states by model id."""
    return json_response(await stage.states())


@router.get("/memory")
@needs("internal")
async def memory(stage: Stage) -> Response:
    """The budget of model memory and what of it is set aside."""
    return json_response(await stage.memory())


@router.post("/steer")
@needs("internal")
async def steer(request: Request, stage: Stage) -> Response:
    """Load or unload a model, a step a line."""
    steps = stage.steer(decode(Order, await request.body()))

    async def lines() -> AsyncIterator[bytes]:
        try:
            async with aclosing(steps) as rest:  # type: ignore[type-var]
                async for step in rest:
                    yield encode(step) + b"\n"
        except PagodaError as error:
            yield encode_error(error)

    return EventStream(lines(), stage.settings.server.keepalive_seconds)


@router.get("/cache")
@needs("internal")
async def cache(stage: Stage) -> Response:
    """What the response cache holds."""
    return json_response(await stage.cache_state())


@router.delete("/cache")
@needs("internal")
async def purge(request: Request, stage: Stage) -> Response:
    """Forget cached answers."""
    wanted = orjson.loads(await request.body())
    try:
        return json_response(await stage.purge_cache(wanted["tenant"], wanted["model"]))
    except PagodaError as error:
        return Response(encode_error(error), status_of(error), media_type="application/json")


@router.post("/keys")
@needs("internal")
async def renew_keys(stage: Stage) -> Response:
    """Look at the keys again: another process has changed them."""
    await stage.keys.refresh(warm=True)
    return json_response({})


@router.post("/drain")
@needs("internal")
async def drain(stage: Stage) -> Response:
    """End the service."""
    stage.gate.asked.set()
    return json_response({})


@router.get("/pools")
@needs("internal")
async def pools(stage: Stage) -> Response:
    """The pools with their replicas."""
    return json_response(await stage.pools())


@router.post("/pools")
@needs("internal")
async def steer_pool(request: Request, stage: Stage) -> Response:
    """An operator's word on a replica."""
    try:
        return json_response(await stage.steer_pool(decode(PoolOrder, await request.body())))
    except PagodaError as error:
        return Response(encode_error(error), status_of(error), media_type="application/json")


@router.post("/metrics")
@needs("internal")
async def metrics(request: Request, stage: Stage) -> Response:
    """Another process has counted this; everything that all have counted."""
    told = orjson.loads(await request.body())
    stage.telemetry.fleet.tell(told["process"], from_wire(told["counted"]))
    return Response(await stage.metrics(), media_type=CONTENT_TYPE_LATEST)


@router.get("/lease")
@needs("internal")
async def lease(stage: Stage, name: str = "") -> Response:
    """Stays open for as long as the other process wants this one to live."""

    async def held() -> AsyncIterator[bytes]:
        leave = stage.lease(name)
        try:
            yield b"\n"
            await stage.closing.wait()
        finally:
            leave()

    return EventStream(held(), _LEASE_BEAT_SECONDS)


@router.post("/{verb}")
@needs("internal")
async def verb(verb: str, request: Request, stage: Stage) -> Response:
    """One of the seven verbs."""
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
    return EventStream(_lines(events, first), stage.settings.server.keepalive_seconds, replayed=is_replayed(first))


async def _lines(events: AsyncIterator[Event], first: Event | None) -> AsyncIterator[bytes]:
    try:
        async with aclosing(events) as rest:  # type: ignore[type-var]
            if first is not None:
                yield encode_event(first)
            async for event in rest:
                yield encode_event(event)
    except PagodaError as error:
        yield encode_error(error)
