"""``/api/v1/keys`` and ``/api/v1/audit``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pagoda.interface.schemas.shared import Shape, Strict
from pagoda.service.keys.key import Period, Scope

Count = Annotated[int, Field(ge=0, le=2**53 - 1, strict=True)]
Money = Annotated[float, Field(ge=0, le=1e9, strict=True, description="In the currency of the price table.")]


class LimitFields(Strict):
    """What an account may use; null sets no bound."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = Field(None, description="Of prompts and answers together.")
    concurrent: Count | None = Field(None, description="Requests under way at once.")
    budget_tokens: Count | None = None
    budget: Money | None = None
    period: Period = Field("total", description="After what both budgets begin anew, in UTC.")


class KeyRequest(Strict):
    """A key that is wanted."""

    name: str = Field(min_length=1, max_length=200)
    team: str = Field("default", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    scopes: list[Scope] = Field(["inference"], min_length=1, max_length=4)
    models: list[Annotated[str, Field(min_length=1, max_length=500)]] | None = Field(
        None, min_length=1, max_length=1000, description="Models it may ask, by id or alias; null: all."
    )
    priority: int = Field(
        0, ge=0, le=99, strict=True, description="Most urgent priority it may ask for; smaller is sooner."
    )
    limits: LimitFields = LimitFields()
    expires: str | None = Field(None, max_length=40, description="30d (or m, h, w), a date, or a date with time.")


class RotateRequest(Strict):
    """How a key's secret is replaced."""

    grace_seconds: float = Field(
        0, ge=0, le=30 * 86400, strict=True, description="How long the old secret goes on working."
    )


class LimitsObject(Shape):
    """What an account may use."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent: int | None
    budget_tokens: int | None
    budget: float | None
    period: Period


class KeyObject(Shape):
    """A key, without its secret."""

    object: Literal["key"]
    id: str
    name: str
    shown: str
    team: str
    scopes: list[Scope]
    models: list[str] | None
    priority: int
    limits: LimitsObject
    team_limits: LimitsObject
    created: str
    expires: str | None
    revoked: str | None
    last_used: str | None


class IssuedKey(KeyObject):
    """A key with its secret, which is shown this once."""

    secret: str


class KeyList(Shape):
    """Keys, newest first."""

    object: Literal["list"]
    data: list[KeyObject]


class AuditLine(Shape):
    """Something that was done, or refused."""

    id: int
    at: str
    who: str
    address: str
    action: str
    subject: str
    outcome: str


class AuditList(Shape):
    """The audit log, newest first."""

    object: Literal["list"]
    data: list[AuditLine]
    has_more: bool
