"""``GET /v1/models``: what can be asked, in OpenAI's form with Pagoda's facts beside it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from starlette.responses import Response

from pagoda.core.errors import NotFound
from pagoda.interface.access import models_of, needs
from pagoda.interface.context import Backstage, ModelStatus, Route, backstage, json_response
from pagoda.interface.schemas.service import ModelList, ModelObject
from pagoda.interface.schemas.shared import ErrorAnswer

router = APIRouter(route_class=Route, tags=["OpenAI"])

AnthropicVersion = Annotated[str | None, Header(include_in_schema=False)]


@router.get("/v1/models", response_model=ModelList, summary="List models")
@needs("inference")
async def list_models(
    request: Request, stage: Annotated[Backstage, Depends(backstage)], anthropic_version: AnthropicVersion = None
) -> Response:
    """All models of the catalog, ready or not; in Anthropic's form for clients that say its version."""
    among = models_of(request)
    statuses = [status for status in await stage.models() if among is None or status.entry.id in among]
    if anthropic_version is not None:
        rows = [_anthropic_object(status) for status in statuses]
        ends = {"first_id": rows[0]["id"] if rows else None, "last_id": rows[-1]["id"] if rows else None}
        return json_response({"data": rows, "has_more": False, **ends})
    return json_response({"object": "list", "data": [_object(stage, status) for status in statuses]})


@router.get(
    "/v1/models/{model_id:path}",
    response_model=ModelObject,
    responses={404: {"model": ErrorAnswer, "description": "There is no such model."}},
    summary="Show a model",
)
@needs("inference")
async def show_model(
    model_id: str,
    request: Request,
    stage: Annotated[Backstage, Depends(backstage)],
    anthropic_version: AnthropicVersion = None,
) -> Response:
    """One model, by id or alias."""
    wanted = stage.entry(model_id, "chat", models_of(request)).id
    for status in await stage.models():
        if status.entry.id == wanted:
            return json_response(_object(stage, status) if anthropic_version is None else _anthropic_object(status))
    raise NotFound(f"{model_id} is not in the catalog; `pagoda models pull {model_id}` adds it.", param="model")


def _anthropic_object(status: ModelStatus) -> dict[str, Any]:
    entry = status.entry
    return {
        "type": "model",
        "id": entry.id,
        "display_name": entry.id,
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": entry.context,
    }


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
