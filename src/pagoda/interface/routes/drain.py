"""``/api/v1/drain``: an operator's word that the service is to end."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from pagoda.interface.access import needs
from pagoda.interface.context import Backstage, Route, backstage, json_response
from pagoda.interface.schemas.service import DrainAnswer

router = APIRouter(route_class=Route, prefix="/api/v1/drain", tags=["Operations"])

Stage = Annotated[Backstage, Depends(backstage)]


@router.post("", status_code=202, response_model=DrainAnswer, summary="End the service")
@needs("operate")
async def drain(stage: Stage) -> Response:
    """Not ready at once; soon no new work is taken, what was taken is finished, and the process exits with status 0."""
    inside = stage.gate.inside - 1  # this request itself
    stage.gate.asked.set()
    response = json_response({"status": "draining", "requests": inside})
    response.status_code = 202
    return response
