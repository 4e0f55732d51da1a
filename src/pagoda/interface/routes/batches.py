"""``/v1/batches``: many requests in a file, answered at low priority within a day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from pagoda.core.types import Usage
from pagoda.interface.access import key_of, needs, tenant_of
from pagoda.interface.context import Backstage, Route, backstage, json_response
from pagoda.interface.render_responses import usage_json
from pagoda.interface.routes.files import page_json
from pagoda.interface.schemas.batches import BatchList, BatchObject, BatchRequest
from pagoda.interface.schemas.shared import ErrorAnswer

if TYPE_CHECKING:
    from pagoda.logic.batches.ledger import Batch, Owner

router = APIRouter(route_class=Route, prefix="/v1/batches", tags=["OpenAI"])

Stage = Annotated[Backstage, Depends(backstage)]
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": ErrorAnswer, "description": "There is no such batch."}}
_ENDED: dict[int | str, dict[str, Any]] = {409: {"model": ErrorAnswer, "description": "The batch has ended."}}


@router.post("", response_model=BatchObject, summary="Begin a batch")
@needs("inference")
async def create_batch(body: BatchRequest, request: Request, stage: Stage) -> Response:
    """Check and answer every line of an uploaded file."""
    return json_response(
        _object(await stage.batches.create(_owner(request), body.input_file_id, body.endpoint, body.metadata or {}))
    )


@router.get("", response_model=BatchList, responses=_MISSING, summary="List batches")
@needs("inference")
async def list_batches(
    request: Request,
    stage: Stage,
    after: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """Batches, newest first."""
    found = await stage.batches.find(tenant_of(request), after=after, limit=limit + 1)
    return json_response(page_json([_object(batch) for batch in found], limit))


@router.get("/{batch_id}", response_model=BatchObject, responses=_MISSING, summary="Show a batch")
@needs("inference")
async def show_batch(batch_id: str, request: Request, stage: Stage) -> Response:
    """A batch as it stands now."""
    return json_response(_object(await stage.batches.get(tenant_of(request), batch_id)))


@router.post("/{batch_id}/cancel", response_model=BatchObject, responses=_MISSING | _ENDED, summary="Cancel a batch")
@needs("inference")
async def cancel_batch(batch_id: str, request: Request, stage: Stage) -> Response:
    """Stop a batch; what it has answered is in its output file."""
    return json_response(_object(await stage.batches.cancel(tenant_of(request), batch_id)))


def _owner(request: Request) -> Owner:
    from pagoda.logic.batches.ledger import Owner  # noqa: PLC0415  (it brings the database)

    key = key_of(request)
    return Owner() if key is None else Owner(key.team, key.id)


def _object(batch: Batch) -> dict[str, Any]:
    record, facts = batch.record, batch.facts
    errors = facts.get("errors")
    ended_at = facts.get("finished_at")
    usage = facts.get("usage")
    return {
        "id": record.id,
        "object": "batch",
        "endpoint": record.endpoint,
        "input_file_id": record.input_file_id,
        "completion_window": "24h",
        "status": batch.status,
        "output_file_id": record.output_file_id if batch.output else None,
        "error_file_id": record.error_file_id if batch.failures else None,
        "errors": {"object": "list", "data": errors} if errors else None,
        "created_at": int(record.created.timestamp()),
        "in_progress_at": facts.get("in_progress_at"),
        "finalizing_at": facts.get("finalizing_at"),
        "completed_at": facts.get("completed_at"),
        "failed_at": ended_at if batch.status == "failed" else None,
        "expired_at": facts.get("expired_at"),
        "expires_at": int(record.expires.timestamp()),
        "cancelling_at": None if record.cancelling is None else int(record.cancelling.timestamp()),
        "cancelled_at": ended_at if batch.status == "cancelled" else None,
        "request_counts": {name: facts.get(name, 0) for name in ("total", "completed", "failed")},
        "usage": None if usage is None else usage_json(Usage(usage["input_tokens"], usage["output_tokens"])),
        "metadata": record.labels or None,
    }
