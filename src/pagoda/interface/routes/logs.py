"""``/api/v1/logs``: prompts and answers that were kept, and their deletion."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from pagoda.interface.access import needs
from pagoda.interface.context import Backstage, Route, backstage, json_response
from pagoda.interface.schemas.logs import ContentList, ForgottenObject

router = APIRouter(route_class=Route, prefix="/api/v1/logs", tags=["Operations"])

Stage = Annotated[Backstage, Depends(backstage)]
Name = Annotated[str | None, Query(min_length=1, max_length=500)]


@router.get("", response_model=ContentList, summary="Show prompts and answers")
@needs("admin")
async def show_logs(
    stage: Stage,
    key: Name = None,
    user: Name = None,
    request_id: Name = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """What was kept (``log.content``), the newest first."""
    from pagoda.service.contents.shelf import Whose, find  # noqa: PLC0415  (it brings the database)

    await stage.contents.flush()
    return json_response({"data": await find(await stage.records(), Whose(key, user, request_id), limit)})


@router.delete("", response_model=ForgottenObject, summary="Delete prompts and answers")
@needs("admin")
async def delete_logs(stage: Stage, key: Name = None, user: Name = None) -> Response:
    """Delete those of a key, of a user, or of a user under a key, for good."""
    from pagoda.service.contents.shelf import Whose, forget  # noqa: PLC0415

    await stage.contents.flush()
    return json_response({"deleted": await forget(await stage.records(), Whose(key, user))})
