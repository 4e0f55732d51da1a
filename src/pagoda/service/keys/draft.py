"""What is asked for when a key is created, and how people write it: ``30d``, ``5`` in money, names of scopes."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

from pagoda.core.errors import InvalidRequest
from pagoda.service.keys.key import NANO, Limits, Scope

SCOPES: tuple[Scope, ...] = typing.get_args(Scope)
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_TEAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SPAN = re.compile(r"(\d{1,6})([mhdw])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_MOST = 2**62
_LEAST_URGENT = 99


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A key that does not exist yet. Raises ``InvalidRequest`` for what no key can be."""

    name: str
    team: str = "default"
    scopes: frozenset[Scope] = frozenset({"inference"})
    models: tuple[str, ...] | None = None
    priority: int = 0
    limits: Limits = Limits()
    expires: datetime | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidRequest("A key's name has 1 to 200 characters.", param="name")
        if not self.scopes or not self.scopes <= set(SCOPES):
            raise InvalidRequest(f"Scopes are some of {', '.join(SCOPES)}.", param="scopes")
        if self.models is not None and not self.models:
            raise InvalidRequest("Name at least one model, or leave models out to allow all.", param="models")
        if not 0 <= self.priority <= _LEAST_URGENT:
            raise InvalidRequest(f"A priority is a number from 0 (first) to {_LEAST_URGENT}.", param="priority")
        if self.expires is not None and self.expires <= datetime.now(UTC):
            raise InvalidRequest("This key would have expired already; give a later time.", param="expires")
        check_team(self.team)
        check_limits(self.limits)


def check_team(name: str) -> str:
    """The name of a team. Raises ``InvalidRequest``."""
    if not _TEAM.fullmatch(name):
        raise InvalidRequest(
            "A team's name has 1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first.",
            param="team",
        )
    return name


def check_limits(limits: Limits) -> Limits:
    """Limits that can be kept. Raises ``InvalidRequest``."""
    for name in ("requests_per_minute", "tokens_per_minute", "concurrent", "budget_tokens", "budget_money"):
        value = getattr(limits, name)
        if value is not None and not 0 <= value <= _MOST:
            raise InvalidRequest(f"{name} must be a number from 0 on.", param=name)
    return limits


def scopes_from(words: Iterable[str]) -> frozenset[Scope]:
    """Scopes by their names. Raises ``InvalidRequest``."""
    found = frozenset(word.strip() for word in words if word.strip())
    if not found <= set(SCOPES):
        unknown = sorted(found - set(SCOPES))[0]
        raise InvalidRequest(f"There is no scope {unknown!r}; scopes are {', '.join(SCOPES)}.", param="scopes")
    return typing.cast("frozenset[Scope]", found)


def expiry_from(text: str) -> datetime:
    """A time from ``30d`` (also m, h, w), a date (its end, UTC) or a date with time. Raises ``InvalidRequest``."""
    text = text.strip()
    if span := _SPAN.fullmatch(text):
        return datetime.now(UTC) + int(span[1]) * _UNITS[span[2]]
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.year > 9000:
        raise InvalidRequest(
            "Write the expiry as 30d (or m, h, w), as a date such as 2027-01-31, or as a date with time.",
            param="expires",
        )
    if len(text) == len("2027-01-31"):
        found += timedelta(days=1)
    return found.astimezone(UTC) if found.tzinfo is not None else found.replace(tzinfo=UTC)


def seconds_from(text: str) -> float:
    """A span of time such as ``30m`` or ``2d``, in seconds. Raises ``InvalidRequest``."""
    if span := _SPAN.fullmatch(text.strip()):
        return int(span[1]) * _UNITS[span[2]].total_seconds()
    raise InvalidRequest("Write a span of time as 30m (or h, d, w).", param="grace")


def nano_from(money: str) -> int:
    """An amount of money such as ``2.50``, in billionths. Raises ``InvalidRequest``."""
    try:
        amount = Decimal(money)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0 or amount * NANO > _MOST:
        raise InvalidRequest("A budget is an amount of money such as 5 or 2.50.", param="budget")
    return int(amount * NANO)
