"""Accounts and what is said about them: values only, that the cores, the stores and the limiter share."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from pagoda.service.keys.key import Key, Limits, Period

LimitName: TypeAlias = Literal["requests", "tokens", "concurrent", "budget_tokens", "budget_money"]

UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Account:
    """Whoever limits hold for: ``key:<id>`` or ``team:<name>``."""

    id: str
    limits: Limits
    team: str

    @property
    def has_rates(self) -> bool:
        """Whether anything a minute, or at once, is bounded."""
        limits = self.limits
        return any(
            each is not None for each in (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent)
        )

    @property
    def has_budget(self) -> bool:
        """Whether what it may spend is bounded."""
        return self.limits.budget_tokens is not None or self.limits.budget_money is not None


def accounts_of(key: Key) -> tuple[Account, ...]:
    """The key's account and its team's, without those that bound nothing."""
    pairs = ((f"key:{key.id}", key.limits), (f"team:{key.team}", key.team_limits))
    return tuple(Account(name, limits, key.team) for name, limits in pairs if limits != UNLIMITED)


@dataclass(slots=True)  # made for every request: freezing would triple what that costs
class Amount:
    """What a budget counts: tokens of prompts and answers, and money in billionths."""

    tokens: int = 0
    money: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.tokens + other.tokens, self.money + other.money)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.tokens - other.tokens, self.money - other.money)

    def __bool__(self) -> bool:
        return bool(self.tokens or self.money)


NOTHING = Amount()


@dataclass(slots=True)  # made for every request: freezing would triple what that costs
class Ask:
    """What a call needs at least and would like at most, in tokens, prompt included.

    A call that another one makes on its way (``counts`` is false) is no request of its own.
    """

    least: int
    most: int
    counts: bool = True


@dataclass(slots=True)  # made for every request: freezing would triple what that costs
class Standing:
    """How the tightest account of a call stands: requests and tokens of the last minute. ``None``: not bounded."""

    requests_limit: int | None = None
    requests_left: int = 0
    requests_reset: float = 0.0
    """Seconds until all of the limit is free again if nothing more is asked."""
    tokens_limit: int | None = None
    tokens_left: int = 0
    tokens_reset: float = 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which limit of which account leaves no room."""

    account: str
    limit: LimitName
    bound: int
    used: int
    needed: int
    retry_after: float | None
    """Seconds after which there may be room; ``None``: waiting does not help."""
    standing: Standing = field(default_factory=Standing)


def period_of(period: Period, when: float) -> str:
    """The name of the period that Unix time ``when`` lies in: ``total``, ``2026-11`` or ``2026-11-22`` (UTC)."""
    if period == "total":
        return "total"
    moment = datetime.fromtimestamp(when, UTC)
    return moment.strftime("%Y-%m" if period == "month" else "%Y-%m-%d")


def seconds_left(period: str, when: float) -> float | None:
    """Seconds until a named period ends; ``None`` for one that never does."""
    if period == "total":
        return None
    year, month, *days = (int(part) for part in period.split("-"))
    if days:
        end = datetime(year, month, days[0], tzinfo=UTC).timestamp() + 86_400.0
    else:
        end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp()
    return max(0.0, end - when)
