"""Schemas of ``/api/v1/usage``."""

from __future__ import annotations

from pydantic import BaseModel


class UsageRow(BaseModel):
    """Sums of one group; of key, team, model and day those that were asked for are there."""

    key: str | None = None
    team: str | None = None
    model: str | None = None
    day: str | None = None
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    money: int
    cost: str
    estimated_tokens: int
    estimated_money: int


class UsageReport(BaseModel):
    """What was used. ``money`` is in billionths of the currency; estimates are part of the sums."""

    currency: str
    by: list[str]
    rows: list[UsageRow]
    total: UsageRow
