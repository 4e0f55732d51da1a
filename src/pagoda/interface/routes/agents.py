"""``/api/v1/agents`` and ``/api/v1/tools``: agents begun, followed, approved and cancelled; tools listed and called."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from pagoda.core.errors import Forbidden
from pagoda.core.types import Call
from pagoda.interface.access import actor_of, author_of, models_of, needs, tenant_of
from pagoda.interface.context import Backstage, Route, backstage, call_of, json_response
from pagoda.interface.schemas.agents import (
    AgentRequest,
    AgentRunList,
    AgentRunObject,
    DecisionRequest,
    ToolCallAnswer,
    ToolCallRequest,
    ToolList,
)
from pagoda.interface.schemas.shared import ErrorAnswer
from pagoda.interface.sse import EventStream, streamed, typed_frame

if TYPE_CHECKING:
    from pagoda.logic.agents.desk import Agents
    from pagoda.logic.agents.journal import AgentRun

router = APIRouter(route_class=Route, prefix="/api/v1", tags=["Agents"])

Stage = Annotated[Backstage, Depends(backstage)]
TheCall = Annotated[Call, Depends(call_of)]
RunId = Annotated[str, Path(min_length=1, max_length=96)]
_STREAM = streamed("The run; with `stream: true` what happens in it, as typed server-sent events.")
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": ErrorAnswer, "description": "There is no such run."}}
_STATE: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorAnswer, "description": "Not in the run's present state."}
}


@router.post("/agents/run", response_model=AgentRunObject, responses=_STREAM, summary="Begin an agent's run")
@needs("inference")
async def run_agent(body: AgentRequest, request: Request, stage: Stage, call: TheCall) -> Response:
    """A task, worked on until it is answered, needs approval, or reaches a limit. It goes on when the client leaves."""
    from pagoda.logic.agents.plan import AgentPlan  # noqa: PLC0415  (like the desk, only where it is used)

    agents = await stage.desk.agents()
    plan = AgentPlan(
        task=body.task,
        tools=tuple(body.tools),
        model=stage.entry(body.model, "chat", models_of(request)).id,
        strategy=body.strategy,
        first=body.first,
        approve=tuple(body.approve),
        limits=body.limits.plain(),
        max_tokens=body.max_tokens,
        temperature=body.temperature,
        seed=body.seed,
        instructions=body.instructions,
        history=tuple(message.model_dump() for message in body.history),
    )
    run = await agents.begin(plan, _lasting(call))
    return await _told(agents, run.id, request, stage, stream=body.stream)


@router.get("/agents/runs", response_model=AgentRunList, summary="List agents' runs")
@needs("inference")
async def list_agents(request: Request, stage: Stage, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
    """The team's runs, newest first."""
    runs = await (await stage.desk.agents()).find(tenant=tenant_of(request), limit=limit)
    return json_response({"object": "list", "data": [run.to_json() for run in runs]})


@router.get("/agents/runs/{run_id}", response_model=AgentRunObject, responses=_MISSING, summary="Show an agent's run")
@needs("inference")
async def show_agent(run_id: RunId, request: Request, stage: Stage) -> Response:
    """A run with all that happened in it so far."""
    agents = await stage.desk.agents()
    tenant = tenant_of(request)
    run = await agents.get(run_id, tenant=tenant)
    events = [event async for event in agents.events(run_id, tenant=tenant, follow=False)]
    return json_response(run.to_json() | {"events": events})


@router.get(
    "/agents/runs/{run_id}/events",
    response_class=Response,
    responses=_MISSING | streamed("Events."),
    summary="Follow an agent's run",
)
@needs("inference")
async def follow_agent(run_id: RunId, request: Request, stage: Stage) -> Response:
    """Everything that happened in a run, again in the same words, and what happens until it ends or waits."""
    agents = await stage.desk.agents()
    await agents.get(run_id, tenant=tenant_of(request))
    return _stream(agents, run_id, request, stage)


@router.post(
    "/agents/runs/{run_id}/resume",
    response_model=AgentRunObject,
    responses=_STREAM | _MISSING | _STATE,
    summary="Go on with an agent's run",
)
@needs("inference")
async def resume_agent(run_id: RunId, request: Request, stage: Stage, call: TheCall, stream: bool = True) -> Response:
    """Go on with a run that was interrupted, or whose waiting calls were decided."""
    agents = await stage.desk.agents()
    await agents.resume(run_id, _lasting(call), tenant=tenant_of(request))
    return await _told(agents, run_id, request, stage, stream=stream)


@router.post(
    "/agents/runs/{run_id}/decision",
    response_model=AgentRunObject,
    responses=_STREAM | _MISSING | _STATE,
    summary="Approve or refuse an agent's calls",
)
@needs("inference")
async def decide_agent(body: DecisionRequest, run_id: RunId, request: Request, stage: Stage, call: TheCall) -> Response:
    """Approve or refuse calls that wait; the run goes on unless further ones wait."""
    agents, tenant = await stage.desk.agents(), tenant_of(request)
    decided: dict[str, Any] = {"approve": body.approve, "by": author_of(request)}
    await agents.decide(run_id, body.step, reason=body.reason, tenant=tenant, **decided)
    if not await agents.waits(run_id):
        await agents.resume(run_id, _lasting(call), tenant=tenant)
    return await _told(agents, run_id, request, stage, stream=body.stream)


@router.post(
    "/agents/runs/{run_id}/cancel",
    response_model=AgentRunObject,
    responses=_MISSING | _STATE,
    summary="Cancel an agent's run",
)
@needs("inference")
async def cancel_agent(run_id: RunId, request: Request, stage: Stage) -> Response:
    """Stop a run for good, with the tool that it is calling."""
    run = await (await stage.desk.agents()).cancel(run_id, tenant=tenant_of(request))
    return json_response(run.to_json())


@router.get("/tools", response_model=ToolList, summary="List tools")
@needs("inference")
async def list_tools(stage: Stage) -> Response:
    """The tools that agents may call."""
    agents = await stage.desk.agents()
    return json_response({"object": "list", "data": [tool.to_json() for tool in agents.tools.all()]})


@router.post("/tools/{name}", response_model=ToolCallAnswer, summary="Call a tool")
@needs("inference")
async def call_tool(
    body: ToolCallRequest, name: Annotated[str, Path(max_length=128)], request: Request, stage: Stage, call: TheCall
) -> Response:
    """One call by hand; a failure of the tool is told in ``error``."""
    from pagoda.logic.tools.byhand import Hand, call_by_hand  # noqa: PLC0415

    tool = (await stage.desk.agents()).tools.get(name)
    if tool.needs_approval and not body.approve:
        raise Forbidden(f"{name} needs approval; send approve: true if it is to be done.", param="approve")
    hand = Hand(stage.book, f"POST {call.route}", actor_of(request))
    outcome = await call_by_hand(hand, tool, body.arguments, call)
    return json_response({"result": outcome.result, "error": outcome.error})


async def _told(agents: Agents, run_id: str, request: Request, stage: Stage, *, stream: bool) -> Response:
    """The run as a stream of what happens, or whole when it rests."""
    if stream:
        return _stream(agents, run_id, request, stage)
    run: AgentRun = await agents.wait(run_id, tenant=tenant_of(request))
    return json_response(run.to_json())


def _stream(agents: Agents, run_id: str, request: Request, stage: Backstage) -> EventStream:
    events = agents.events(run_id, tenant=tenant_of(request))
    return EventStream(_frames(events), stage.settings.server.keepalive_seconds, {"X-Agent-Run": run_id})


async def _frames(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    async with aclosing(events) as source:  # type: ignore[type-var]
        async for event in source:
            yield typed_frame(event)


def _lasting(call: Call) -> Call:
    """The call of a run, which may last longer than a request."""
    return replace(call, deadline=None)
