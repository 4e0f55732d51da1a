"""``/api/v1/cache``: what the response cache holds, and forgetting it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from pagoda.interface.access import needs
from pagoda.interface.context import Backstage, Route, backstage, json_response
from pagoda.interface.schemas.cache import CachePurged, CacheState
from pagoda.interface.schemas.shared import ErrorAnswer

router = APIRouter(route_class=Route, prefix="/api/v1/cache", tags=["Operations"])

Stage = Annotated[Backstage, Depends(backstage)]
Name = Annotated[str | None, Query(min_length=1, max_length=500)]
_DOWN: dict[int | str, dict[str, Any]] = {503: {"model": ErrorAnswer, "description": "Redis does not answer."}}
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": ErrorAnswer, "description": "There is no such model."}}


@router.get("", response_model=CacheState, responses=_DOWN, summary="Show the response cache")
@needs("monitor")
async def show_cache(stage: Stage) -> Response:
    """Where answers are kept, and how many."""
    return json_response(await stage.cache_state())


@router.delete("", response_model=CachePurged, responses=_DOWN | _MISSING, summary="Purge the response cache")
@needs("operate")
async def purge_cache(stage: Stage, tenant: Name = None, model: Name = None) -> Response:
    """Forget the answers of a tenant, of a model, of both together; all answers when neither is named."""
    return json_response(await stage.purge_cache(tenant, model))
