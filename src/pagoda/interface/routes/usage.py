"""``/api/v1/usage``: what was used, by key, team, model and day."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BeforeValidator
from starlette.responses import Response

from pagoda.core.errors import InvalidRequest
from pagoda.interface.access import key_of, needs
from pagoda.interface.context import Backstage, Route, backstage, json_response
from pagoda.interface.schemas.shared import ErrorAnswer
from pagoda.interface.schemas.usage import UsageReport

router = APIRouter(route_class=Route, prefix="/api/v1/usage", tags=["Operations"])

_GROUPS = ("key", "team", "model", "day")
_BY = "Of key, team, model, day; separated by commas."
_DOWN: dict[int | str, dict[str, Any]] = {503: {"model": ErrorAnswer, "description": "The database does not answer."}}
Name = Annotated[str | None, Query(min_length=1, max_length=500)]


def _whole_day(value: Any) -> Any:
    """Let ``YYYY-MM-DD`` through alone; pydantic would also take seconds since 1970 for a day."""
    if isinstance(value, str) and date.fromisoformat(value).isoformat() != value:
        raise ValueError("write a day as YYYY-MM-DD")
    return value


Day = Annotated[date | None, BeforeValidator(_whole_day)]


async def visible_key(request: Request) -> str | None:
    """The one key whose usage the caller may see; ``None``: everybody's. Scopes of keys are decided here alone."""
    key = key_of(request)
    return None if key is None or key.may("monitor") else key.id


async def question_of(
    own: Annotated[str | None, Depends(visible_key)],
    key: Name = None,
    team: Name = None,
    model: Name = None,
    since: Annotated[Day, Query(alias="from", description="First day, UTC.")] = None,
    until: Annotated[Day, Query(alias="to", description="Last day, UTC.")] = None,
    by: Annotated[
        str, Query(max_length=100, description="Of key, team, model, day; separated by commas.")
    ] = "key,model,day",
) -> dict[str, Any]:
    """What is asked of the ledger. Raises ``InvalidRequest``."""
    groups = [name for name in by.split(",") if name]
    if any(name not in _GROUPS for name in groups) or len(set(groups)) != len(groups):
        raise InvalidRequest(f"by must name some of {', '.join(_GROUPS)}, separated by commas.", param="by")
    return {
        "key": own or key,
        "team": team,
        "model": model,
        "since": None if since is None else since.isoformat(),
        "until": None if until is None else until.isoformat(),
        "by": groups,
    }


@router.get("", response_model=UsageReport, responses=_DOWN, summary="Report usage")
@needs("inference")
async def report_usage(
    stage: Annotated[Backstage, Depends(backstage)], question: Annotated[dict[str, Any], Depends(question_of)]
) -> Response:
    """Sums of tokens and money, exact."""
    return json_response(await stage.usage(question))
