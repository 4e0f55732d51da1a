"""``/api/v1/keys`` and ``/api/v1/audit``: keys made, replaced and ended, and what was done with them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Query, Request
from starlette.responses import Response

from pagoda.interface.access import actor_of, needs
from pagoda.interface.context import Backstage, Route, backstage, json_response
from pagoda.interface.schemas.keys import AuditList, IssuedKey, KeyList, KeyObject, KeyRequest, RotateRequest
from pagoda.interface.schemas.shared import ErrorAnswer
from pagoda.service.keys.draft import Draft, expiry_from, nano_from
from pagoda.service.keys.key import Limits
from pagoda.service.keys.view import audit_json, held_json, issued_json

router = APIRouter(route_class=Route, tags=["Keys"])

Stage = Annotated[Backstage, Depends(backstage)]
Reference = Annotated[str, Path(min_length=1, max_length=200)]
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": ErrorAnswer, "description": "There is no such key."}}
_TAKEN: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorAnswer, "description": "Not in the key's present state."}
}
_ONCE = {"Cache-Control": "no-store"}


@router.get("/api/v1/keys", response_model=KeyList, summary="List keys")
@needs("admin")
async def list_keys(stage: Stage, revoked: bool = False) -> Response:
    """All working keys, newest first; with ``revoked`` those too that were ended."""
    return json_response(
        {"object": "list", "data": [held_json(held) for held in await stage.book.find(revoked=revoked)]}
    )


@router.post("/api/v1/keys", response_model=IssuedKey, responses=_TAKEN, summary="Create a key")
@needs("admin")
async def create_key(body: KeyRequest, request: Request, stage: Stage) -> Response:
    """A new key; its secret is shown in this answer and never again."""
    given = body.limits
    draft = Draft(
        name=body.name,
        team=body.team,
        scopes=frozenset(body.scopes),
        models=None if body.models is None else tuple(stage.entry(name, "chat").id for name in body.models),
        priority=body.priority,
        limits=Limits(
            requests_per_minute=given.requests_per_minute,
            tokens_per_minute=given.tokens_per_minute,
            concurrent=given.concurrent,
            budget_tokens=given.budget_tokens,
            budget_money=None if given.budget is None else nano_from(repr(given.budget)),
            period=given.period,
        ),
        expires=None if body.expires is None else expiry_from(body.expires),
    )
    issued = await stage.book.create(draft, actor_of(request))
    await stage.refresh_keys()
    return json_response(issued_json(issued), _ONCE)


@router.get("/api/v1/keys/{key}", response_model=KeyObject, responses=_MISSING, summary="Show a key")
@needs("admin")
async def show_key(key: Reference, stage: Stage) -> Response:
    """A key by its id, or by its name while it works."""
    return json_response(held_json(await stage.book.get(key)))


@router.delete("/api/v1/keys/{key}", response_model=KeyObject, responses=_MISSING | _TAKEN, summary="Revoke a key")
@needs("admin")
async def revoke_key(key: Reference, request: Request, stage: Stage) -> Response:
    """End a key for good; the last admin key is refused, since nobody could make another over HTTP."""
    held = await stage.book.revoke(key, actor_of(request), keep_admin=True)
    await stage.refresh_keys(held.key.id)
    return json_response(held_json(held))


@router.post("/api/v1/keys/{key}/rotate", response_model=IssuedKey, responses=_MISSING | _TAKEN, summary="Rotate a key")
@needs("admin")
async def rotate_key(
    key: Reference, request: Request, stage: Stage, body: Annotated[RotateRequest | None, Body()] = None
) -> Response:
    """Give a key a new secret; the old one goes on working for the time of grace."""
    issued = await stage.book.rotate(key, (body or RotateRequest()).grace_seconds, actor_of(request))
    await stage.refresh_keys(issued.held.key.id)
    return json_response(issued_json(issued), _ONCE)


@router.get("/api/v1/audit", response_model=AuditList, summary="Read the audit log")
@needs("admin")
async def read_audit(
    stage: Stage,
    before: Annotated[int | None, Query(ge=1, le=2**53 - 1)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """What was done, newest first, from the line before ``before`` on."""
    rows = await stage.book.audit(limit=limit + 1, before=before)
    return json_response(
        {"object": "list", "data": [audit_json(row) for row in rows[:limit]], "has_more": len(rows) > limit}
    )
