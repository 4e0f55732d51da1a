"""``GET /v1/models``: what can be asked, in OpenAI's form with Pagoda's facts beside it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

from pagoda.core.errors import NotFound
from pagoda.interface.context import Backstage, ModelStatus, Route, backstage, json_response
from pagoda.interface.schemas.service import ModelList, ModelObject
from pagoda.interface.schemas.shared import ErrorAnswer

router = APIRouter(route_class=Route, tags=["OpenAI"])


@router.get("/v1/models", response_model=ModelList, summary="List models")
async def list_models(stage: Annotated[Backstage, Depends(backstage)]) -> Response:
    """All models of the catalog, ready or not."""
    return json_response({"object": "list", "data": [_object(stage, status) for status in await stage.models()]})


@router.get(
    "/v1/models/{model_id:path}",
    response_model=ModelObject,
    responses={404: {"model": ErrorAnswer, "description": "There is no such model."}},
    summary="Show a model",
)
async def show_model(model_id: str, stage: Annotated[Backstage, Depends(backstage)]) -> Response:
    """One model, by id or alias."""
    wanted = stage.entry(model_id, "chat").id
    for status in await stage.models():
        if status.entry.id == wanted:
            return json_response(_object(stage, status))
    raise NotFound(f"{model_id} is not in the catalog; `pagoda models pull {model_id}` adds it.", param="model")


def _object(stage: Backstage, status: ModelStatus) -> dict[str, Any]:
    entry = status.entry
    defaults = (stage.entry(None, "chat").id, stage.entry(None, "embedding").id)
    return {
        "id": entry.id,
        "object": "model",
        "created": 0,
        "owned_by": "pagoda" if entry.builtin else "user",
        "pagoda": {
            "task": entry.task,
            "engine": entry.engine,
            "state": status.state,
            "reason": status.reason,
            "default": entry.id in defaults,
            "context": entry.context,
            "dimensions": entry.dimensions,
            "aliases": status.aliases,
        },
    }
