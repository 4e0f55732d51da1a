"""Whether the service lives, takes requests, and what it has counted."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

import pagoda
from pagoda.core.errors import NotFound, PagodaError
from pagoda.interface.access import Access, needs, public
from pagoda.interface.context import Backstage, Route, backstage, json_response
from pagoda.interface.schemas.service import HealthAnswer, ReadyAnswer
from pagoda.service.crew import read_crew

router = APIRouter(route_class=Route, tags=["Operations"])

Stage = Annotated[Backstage, Depends(backstage)]


@router.get("/health", response_model=HealthAnswer, summary="Is the service alive?")
@public
async def health(request: Request, stage: Stage) -> Response:
    """Alive; with a key, or where none is needed, also which models are loaded and how many workers live.

    It answers while draining too.
    """
    if stage.keys.required and not await _is_known(request):
        return json_response({"status": "ok"})
    states = await stage.states()
    loaded = sorted(model for model, state in states.items() if state["state"] == "ready")
    told: dict[str, Any] = {"status": "ok", "version": pagoda.__version__, "models_loaded": loaded}
    if (crew := read_crew(stage.settings.home)) is not None:
        told["workers"] = {"wanted": crew.wanted, "alive": crew.alive}
    return json_response(told)


async def _is_known(request: Request) -> bool:
    access: Access = request.app.state.access
    try:
        return await access.identify(request) is not None
    except PagodaError:  # whoever watches us is told that we live, whatever became of its key
        return False


@router.get(
    "/ready",
    response_model=ReadyAnswer,
    responses={503: {"model": ReadyAnswer, "description": "The service is shutting down."}},
    summary="Does the service take requests?",
)
@public
async def ready(stage: Stage) -> Response:
    """200; 503 as soon as the service is to end, while it still takes requests from those who do not know yet."""
    draining = stage.gate.asked.is_set()
    response = json_response({"status": "draining" if draining else "ready"})
    response.status_code = 503 if draining else 200
    return response


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text."}},
    summary="Metrics",
)
@needs("monitor")
async def metrics(stage: Stage) -> Response:
    """All metrics of this home's processes in Prometheus's text format."""
    if not stage.settings.server.metrics:
        raise NotFound("Metrics are switched off (server.metrics).")
    return Response(await stage.metrics(), media_type=CONTENT_TYPE_LATEST)
