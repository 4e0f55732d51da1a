"""``/v1/files``: upload, list, read and delete the files of batches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query, Request, UploadFile
from starlette.responses import FileResponse, Response

from pagoda.core.errors import InvalidRequest
from pagoda.interface.access import needs, tenant_of
from pagoda.interface.context import Backstage, Route, backstage, json_response
from pagoda.interface.schemas.batches import FileDeleted, FileList, FileObject
from pagoda.interface.schemas.shared import ErrorAnswer

if TYPE_CHECKING:
    from pagoda.core.storage.records import FileRecord

router = APIRouter(route_class=Route, prefix="/v1/files", tags=["OpenAI"])

Stage = Annotated[Backstage, Depends(backstage)]
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": ErrorAnswer, "description": "There is no such file."}}
_BUSY: dict[int | str, dict[str, Any]] = {409: {"model": ErrorAnswer, "description": "A batch reads the file."}}
_BLOCK = 1 << 20


@router.post("", response_model=FileObject, summary="Upload a file")
@needs("inference")
async def upload_file(
    file: UploadFile, purpose: Annotated[Literal["batch"], Form()], request: Request, stage: Stage
) -> Response:
    """Keep the input of a batch."""
    if unknown := sorted(set(await request.form()) - {"file", "purpose"}):
        raise InvalidRequest(f"There is no parameter {unknown[0]}.", param=unknown[0], code="unknown_parameter")
    return json_response(
        _object(await stage.files.add(tenant_of(request), file.filename or "input.jsonl", purpose, _blocks(file)))
    )


@router.get("", response_model=FileList, responses=_MISSING, summary="List files")
@needs("inference")
async def list_files(
    request: Request,
    stage: Stage,
    after: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    """Files by the time of their creation."""
    found = await stage.files.find(
        tenant_of(request), purpose=purpose, after=after, limit=limit + 1, newest_first=order == "desc"
    )
    return json_response(page_json([_object(record) for record in found], limit))


@router.get("/{file_id}", response_model=FileObject, responses=_MISSING, summary="Show a file")
@needs("inference")
async def show_file(file_id: str, request: Request, stage: Stage) -> Response:
    """What is known of a file."""
    return json_response(_object(await stage.files.get(tenant_of(request), file_id)))


@router.get(
    "/{file_id}/content",
    response_class=Response,
    responses=_MISSING | {200: {"description": "The content.", "content": {"application/octet-stream": {}}}},
    summary="Read a file",
)
@needs("inference")
async def read_file(file_id: str, request: Request, stage: Stage) -> Response:
    """The content of a file."""
    record = await stage.files.get(tenant_of(request), file_id)
    return FileResponse(stage.files.path(record.id), media_type="application/octet-stream")


@router.delete("/{file_id}", response_model=FileDeleted, responses=_MISSING | _BUSY, summary="Delete a file")
@needs("inference")
async def delete_file(file_id: str, request: Request, stage: Stage) -> Response:
    """Remove a file for good."""
    await stage.files.remove(tenant_of(request), file_id)
    return json_response({"id": file_id, "object": "file", "deleted": True})


def page_json(rows: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """A page of a list, of which one more row than shown was looked for."""
    shown = rows[:limit]
    ends = {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
    return {"object": "list", "data": shown, "has_more": len(rows) > limit, **ends}


def _object(record: FileRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "object": "file",
        "bytes": record.bytes,
        "created_at": int(record.created.timestamp()),
        "filename": record.filename,
        "purpose": record.purpose,
        "status": "processed",
    }


async def _blocks(file: UploadFile) -> AsyncIterator[bytes]:
    while block := await file.read(_BLOCK):
        yield block
