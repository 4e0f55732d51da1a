"""``/v1/files`` and ``/v1/batches``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pagoda.interface.schemas.shared import Shape, Strict


class BatchRequest(Strict):
    """A file of requests to be answered."""

    input_file_id: str = Field(min_length=1, max_length=100)
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
    completion_window: Literal["24h"]
    metadata: dict[str, str] | None = Field(None, max_length=16, description="Given back.")


class FileObject(Shape):
    """A file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]


class FileDeleted(Shape):
    """That a file is gone."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


class FileList(Shape):
    """Files."""

    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchCounts(Shape):
    """Lines by how they ended."""

    total: int
    completed: int
    failed: int


class BatchObject(Shape):
    """A batch as it stands."""

    id: str
    object: Literal["batch"]
    endpoint: str
    input_file_id: str
    completion_window: Literal["24h"]
    status: Literal[
        "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
    ]
    output_file_id: str | None
    error_file_id: str | None
    errors: dict[str, Any] | None
    created_at: int
    expires_at: int
    request_counts: BatchCounts
    metadata: dict[str, str] | None


class BatchList(Shape):
    """Batches, newest first."""

    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
