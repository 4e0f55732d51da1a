"""Schemas of ``/api/v1/logs``."""

from __future__ import annotations

from pydantic import BaseModel


class ContentObject(BaseModel):
    """What was said in one call, secrets masked."""

    at: str
    request_id: str
    key_id: str
    team: str
    user: str | None
    model: str
    route: str
    status: str
    prompt: str
    answer: str


class ContentList(BaseModel):
    """The newest first."""

    data: list[ContentObject]


class ForgottenObject(BaseModel):
    """How many calls were forgotten."""

    deleted: int
