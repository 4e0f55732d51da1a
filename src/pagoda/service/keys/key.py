"""What a key is: whom it names, what it may do, and within which limits. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

Scope: TypeAlias = Literal["inference", "monitor", "operate", "admin"]
"""``inference``: ask models, with files and batches. ``monitor``: see states, metrics and all usage. ``operate``: load
models, purge caches, drain, steer pools and runs. ``admin``: all of these, and keys."""
Period: TypeAlias = Literal["total", "day", "month"]
"""After what a budget begins anew, in UTC; ``total``: never."""

NANO = 1_000_000_000
"""Money is counted in whole billionths of the currency that the price table is written in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an account may use; ``None`` sets no bound."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Tokens of prompts and answers together."""
    concurrent: int | None = None
    """Requests under way at once."""
    budget_tokens: int | None = None
    budget_money: int | None = None
    """In billionths (``NANO``)."""
    period: Period = "total"
    """Of both budgets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as everyone but its owner sees it: without its secret."""

    id: str
    name: str
    team: str = "default"
    """Whose it is. A team's keys share its limits, its cached answers and its files: ``Call.tenant`` is the team."""
    scopes: frozenset[Scope] = frozenset({"inference"})
    models: tuple[str, ...] | None = None
    """Ids of the models it may ask; ``None``: all."""
    priority: int = 0
    """Most urgent priority it may ask for: a smaller one is raised to this."""
    limits: Limits = Limits()
    team_limits: Limits = Limits()
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None

    def may(self, scope: Scope) -> bool:
        """Whether it opens what needs ``scope``."""
        return scope in self.scopes or "admin" in self.scopes


class Keys(Protocol):
    """Where keys are found while requests run: in memory, renewed from the database now and then."""

    def get(self, key_id: str) -> Key | None:
        """The key of that id if it is at hand, without waiting and whatever its state: its owner was let in already."""
        ...

    async def find(self, key_id: str) -> Key:
        """The key of that id. Raises ``Forbidden`` when it is revoked, expired or unknown."""
        ...
