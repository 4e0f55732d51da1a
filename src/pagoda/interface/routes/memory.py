"""``/api/v1/models``: which models are in memory, what they take, and an operator's word on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Body, Depends, Request
from starlette.responses import Response

from pagoda.core.errors import Unavailable
from pagoda.interface.access import needs
from pagoda.interface.context import Backstage, Route, backstage, json_response
from pagoda.interface.schemas.memory import LoadRequest, MemoryAnswer, ModelStep, UnloadRequest
from pagoda.interface.schemas.shared import ErrorAnswer
from pagoda.interface.sse import EventStream, frame, streamed, while_connected
from pagoda.service.lifecycle import Order, Step

router = APIRouter(route_class=Route, prefix="/api/v1/models", tags=["Models"])

Stage = Annotated[Backstage, Depends(backstage)]
_Responses: TypeAlias = dict[int | str, dict[str, Any]]
_EVENTS = streamed("Steps.")
_MISSING: _Responses = {404: {"model": ErrorAnswer, "description": "There is no such model."}}
_ABSENT: _Responses = {409: {"model": ErrorAnswer, "description": "The model's files are not here."}}
_ELSEWHERE: _Responses = {409: {"model": ErrorAnswer, "description": "Another process owns the engines."}}


@router.get("", response_model=MemoryAnswer, summary="Models and their memory")
@needs("monitor")
async def list_memory(stage: Stage) -> Response:
    """All models with their states, and the budget they share."""
    rows = [
        {
            "id": status.entry.id,
            "task": status.entry.task,
            "engine": status.entry.engine,
            **(status.engine or {}),
            "state": status.state,
            "reason": status.reason,
        }
        for status in await stage.models()
    ]
    return json_response({"object": "list", **await stage.memory(), "data": rows})


@router.get("/events", response_class=Response, responses=_ELSEWHERE | _EVENTS, summary="Follow the models' states")
@needs("monitor")
async def follow_models(stage: Stage) -> Response:
    """Every change of a model's state from now on, as server-sent events."""
    return EventStream(_frames(stage.watch_models()), stage.settings.server.keepalive_seconds)


@router.post(
    "/{model_id:path}/load", response_model=ModelStep, responses=_MISSING | _ABSENT | _EVENTS, summary="Load a model"
)
@needs("operate")
async def load(
    model_id: str, request: Request, stage: Stage, body: Annotated[LoadRequest | None, Body()] = None
) -> Response:
    """Have the model in memory; others leave where there is no room. Answers when it is ready."""
    wanted = body or LoadRequest()
    order = Order(action="load", model=model_id, pull=wanted.pull, pinned=wanted.pinned, keep_alive=wanted.keep_alive)
    return await _answer(request, stage, order, stream=wanted.stream)


@router.post(
    "/{model_id:path}/unload", response_model=ModelStep, responses=_MISSING | _EVENTS, summary="Unload a model"
)
@needs("operate")
async def unload(
    model_id: str, request: Request, stage: Stage, body: Annotated[UnloadRequest | None, Body()] = None
) -> Response:
    """Have the model out of memory, as soon as the requests that use it have ended. Later requests bring it back."""
    wanted = body or UnloadRequest()
    return await _answer(request, stage, Order(action="unload", model=model_id), stream=wanted.stream)


async def _answer(request: Request, stage: Backstage, order: Order, *, stream: bool) -> Response:
    order = replace(order, model=stage.entry(order.model, "chat").id)  # a client's names only, never a path
    steps = stage.steer(order)
    if stream:
        return EventStream(_frames(steps), stage.settings.server.keepalive_seconds)
    return json_response(await while_connected(request, _last(steps, order.model)))


async def _last(steps: AsyncIterator[Step], model: str) -> Step:
    last = None
    async with aclosing(steps) as source:  # type: ignore[type-var]
        async for step in source:
            last = step
    if last is None:
        raise Unavailable(f"The state of {model} is not known.")
    return last


async def _frames(steps: AsyncIterator[Step]) -> AsyncIterator[bytes]:
    async with aclosing(steps) as source:  # type: ignore[type-var]
        async for step in source:
            yield frame(step)
