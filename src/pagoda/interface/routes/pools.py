"""``/api/v1/pools``: the replicas behind a model name, and an operator's word on them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

from pagoda.interface.access import needs
from pagoda.interface.context import Backstage, Route, backstage, json_response
from pagoda.interface.schemas.pools import PoolList, ReplicaRequest, ReplicaState
from pagoda.interface.schemas.shared import ErrorAnswer
from pagoda.service.routing.steering import PoolOrder

router = APIRouter(route_class=Route, prefix="/api/v1/pools", tags=["Operations"])

Stage = Annotated[Backstage, Depends(backstage)]
_MISSING: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorAnswer, "description": "There is no such pool or replica."}
}
_CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorAnswer, "description": "It is there already, or was not registered here."}
}


@router.get("", response_model=PoolList, summary="List pools")
@needs("monitor")
async def list_pools(stage: Stage) -> Response:
    """All pools with their replicas as they are now."""
    return json_response({"object": "list", "data": await stage.pools()})


@router.post(
    "/{pool}/replicas", response_model=ReplicaState, responses=_MISSING | _CONFLICT, summary="Register a replica"
)
@needs("operate")
async def add_replica(pool: str, body: ReplicaRequest, stage: Stage) -> Response:
    """A replica joins; it is kept over a restart."""
    return await _done(stage, PoolOrder(action="add", pool=pool, values=body.model_dump()))


@router.delete(
    "/{pool}/replicas/{replica}",
    response_model=ReplicaState,
    responses=_MISSING | _CONFLICT,
    summary="Remove a registered replica",
)
@needs("operate")
async def remove_replica(pool: str, replica: str, stage: Stage) -> Response:
    """A replica that was registered leaves, and finishes what it has."""
    return await _done(stage, PoolOrder(action="remove", pool=pool, replica=replica))


@router.post("/{pool}/replicas/{replica}/drain", response_model=ReplicaState, responses=_MISSING, summary="Drain")
@needs("operate")
async def drain_replica(pool: str, replica: str, stage: Stage) -> Response:
    """The replica takes nothing new and finishes what it has; `outstanding` tells when it has."""
    return await _done(stage, PoolOrder(action="drain", pool=pool, replica=replica))


@router.post("/{pool}/replicas/{replica}/resume", response_model=ReplicaState, responses=_MISSING, summary="Resume")
@needs("operate")
async def resume_replica(pool: str, replica: str, stage: Stage) -> Response:
    """The replica takes requests again."""
    return await _done(stage, PoolOrder(action="resume", pool=pool, replica=replica))


async def _done(stage: Backstage, order: PoolOrder) -> Response:
    return json_response(await stage.steer_pool(order))
