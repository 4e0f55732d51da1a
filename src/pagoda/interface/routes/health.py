"""Whether the service lives, takes requests, and what it has counted."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

import pagoda
from pagoda.core.errors import NotFound
from pagoda.interface.context import Backstage, Route, backstage, json_response
from pagoda.interface.schemas.service import HealthAnswer, ReadyAnswer

router = APIRouter(route_class=Route, tags=["Operations"])

Stage = Annotated[Backstage, Depends(backstage)]


@router.get("/health", response_model=HealthAnswer, summary="Is the service alive?")
async def health(stage: Stage) -> Response:
    """Alive, and which models are loaded; answers while draining too."""
    states = await stage.states()
    loaded = sorted(model for model, state in states.items() if state["state"] == "ready")
    return json_response({"status": "ok", "version": pagoda.__version__, "models_loaded": loaded})


@router.get(
    "/ready",
    response_model=ReadyAnswer,
    responses={503: {"model": ReadyAnswer, "description": "The service is shutting down."}},
    summary="Does the service take requests?",
)
async def ready(stage: Stage) -> Response:
    """200 while new requests are taken, 503 while draining."""
    response = json_response({"status": "draining" if stage.closing.is_set() else "ready"})
    response.status_code = 503 if stage.closing.is_set() else 200
    return response


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text."}},
    summary="Metrics",
)
async def metrics(stage: Stage) -> Response:
    """All metrics of this process in Prometheus's text format."""
    if not stage.settings.server.metrics:
        raise NotFound("Metrics are switched off (server.metrics).")
    await stage.states()
    return Response(stage.telemetry.expose(), media_type=CONTENT_TYPE_LATEST)
