"""What is entered in the ledger, and what is asked of it (values only; the database comes later)."""

from __future__ import annotations

from dataclasses import dataclass

from pagoda.service.limits.account import Account, Amount


@dataclass(slots=True, kw_only=True)  # made for every request: freezing would triple what that costs
class Row:
    """What one call used."""

    at: float
    key_id: str
    team: str
    model: str
    endpoint: str
    prompt: int
    cached: int
    completion: int
    money: int
    status: str
    estimated: bool
    request_id: str
    requests: int = 1


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to this holder's slice of a budget: spent, and how much less is leased (or more, below zero)."""

    account: Account
    period: str
    spent: Amount
    returned: Amount


@dataclass(frozen=True, slots=True)
class Batch:
    """What is written at once, and once."""

    number: int
    rows: tuple[Row, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """How much of a budget is wanted: at least, for the call at hand, and at most."""

    least: Amount
    wanted: Amount
    most: Amount


@dataclass(frozen=True, slots=True)
class Taken:
    """What the ledger leased, and how the budget stands after it: spent, and leased to all services together."""

    granted: Amount
    spent: Amount
    leased: Amount


class HolderGone(Exception):
    """Control signal: the others took this holder for dead and charged what it held."""
