"""``/api/v1/runs``: long work as the terminal sees it, over HTTP: list, show, follow, cancel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Header, Query
from starlette.responses import Response

from pagoda.core.runs import RunEvent
from pagoda.interface.access import needs
from pagoda.interface.context import Backstage, Route, backstage, json_response
from pagoda.interface.schemas.runs import RunList, RunObject
from pagoda.interface.schemas.shared import ErrorAnswer
from pagoda.interface.sse import EventStream, streamed

router = APIRouter(route_class=Route, prefix="/api/v1/runs", tags=["Runs"])

Stage = Annotated[Backstage, Depends(backstage)]
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": ErrorAnswer, "description": "There is no such run."}}
_ENDED: dict[int | str, dict[str, Any]] = {409: {"model": ErrorAnswer, "description": "The run has ended already."}}


@router.get("", response_model=RunList, summary="List runs")
@needs("operate")
async def list_runs(
    stage: Stage,
    kind: Annotated[str | None, Query(max_length=100)] = None,
    status: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Runs of this home, newest first."""
    found = await asyncio.to_thread(stage.runs.find, kind=kind, status=status, limit=limit)
    return json_response({"object": "list", "data": [run.to_json() for run in found]})


@router.get("/{run_id}", response_model=RunObject, responses=_MISSING, summary="Show a run")
@needs("operate")
async def show_run(run_id: str, stage: Stage) -> Response:
    """One run as it stands now."""
    return json_response((await asyncio.to_thread(stage.runs.get, run_id)).to_json())


@router.post("/{run_id}/cancel", response_model=RunObject, responses=_MISSING | _ENDED, summary="Cancel a run")
@needs("operate")
async def cancel_run(run_id: str, stage: Stage) -> Response:
    """Ask a run to stop at its next step; it can be resumed later."""
    return json_response((await asyncio.to_thread(stage.runs.cancel, run_id)).to_json())


@router.get(
    "/{run_id}/events",
    response_class=Response,
    responses=_MISSING | streamed("Events."),
    summary="Follow a run",
)
@needs("operate")
async def follow_run(
    run_id: str,
    stage: Stage,
    last_event_id: Annotated[str | None, Header(max_length=100, pattern=r"^\d{1,15}-\d{1,15}$")] = None,
) -> Response:
    """Everything that happens in a run as server-sent events, from its beginning or after ``Last-Event-ID``."""
    await asyncio.to_thread(stage.runs.get, run_id)
    events = stage.runs.watch_async(run_id, after=last_event_id)
    return EventStream(_frames(events, stage), stage.settings.server.keepalive_seconds)


async def _frames(events: AsyncIterator[RunEvent], stage: Backstage) -> AsyncIterator[bytes]:
    async with aclosing(events) as source:  # type: ignore[type-var]
        async for event in source:
            yield b"id: " + event.id.encode() + b"\ndata: " + orjson.dumps(event.to_json()) + b"\n\n"
            if stage.closing.is_set():
                return  # the watcher comes back with Last-Event-ID
