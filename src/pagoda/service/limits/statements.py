"""The ledger's statements that are executed many times a minute, each built once, on the bare tables.

To build a statement, or to have the mapper build it, costs several times what the database does for it. All take their
values by name; a list of rows is one statement.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Table, bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from pagoda.core.storage.records import BudgetRecord, HolderRecord, LeaseRecord, UsageDayRecord, UsageRecord
from pagoda.core.storage.upsert import dialect_of, insertion_for
from pagoda.service.limits.account import NOTHING, Account, Amount

BUDGETS: Table = BudgetRecord.__table__  # type: ignore[assignment]
HOLDERS: Table = HolderRecord.__table__  # type: ignore[assignment]
LEASES: Table = LeaseRecord.__table__  # type: ignore[assignment]
USAGE: Table = UsageRecord.__table__  # type: ignore[assignment]
DAYS: Table = UsageDayRecord.__table__  # type: ignore[assignment]

SUMS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "money")
ESTIMATES = ("estimated_tokens", "estimated_money")
DAY = ("day", "key_id", "team", "model")

_HOLDER = select(HOLDERS.c.batch).where(HOLDERS.c.id == bindparam("id")).with_for_update()
_ALIVE = (
    update(HOLDERS).where(HOLDERS.c.id == bindparam("holder")).values(seen=bindparam("seen"), batch=bindparam("batch"))
)
_MONEY = ("spent_tokens", "spent_money", "leased_tokens", "leased_money")
_BUDGET = (
    select(*(BUDGETS.c[name] for name in _MONEY))
    .where(BUDGETS.c.account == bindparam("account"), BUDGETS.c.period == bindparam("period"))
    .with_for_update()
)
_CHANGE = (
    update(BUDGETS)
    .where(BUDGETS.c.account == bindparam("of_account"), BUDGETS.c.period == bindparam("of_period"))
    .values({name: BUDGETS.c[name] + bindparam(f"more_{name}") for name in _MONEY})
)
_ROWS = insert(USAGE)
_ROWS_AT_ONCE = 200
_EMPTIED = delete(LEASES).where(LEASES.c.holder == bindparam("of_holder"), LEASES.c.tokens == 0, LEASES.c.money == 0)


def batch_of(session: Session, holder: str) -> int | None:
    """Number of the last batch that a holder wrote, its row locked; ``None``: there is no such holder."""
    number: int | None = session.scalar(_HOLDER, {"id": holder})
    return number


def mark_alive(session: Session, holder: str, seen: Any, batch: int) -> None:
    """Note that a holder lives, and what it wrote last."""
    session.execute(_ALIVE, {"holder": holder, "seen": seen, "batch": batch})


def budget_at(session: Session, account: str, period: str) -> tuple[Amount, Amount] | None:
    """What is spent and what is leased of a budget, its row locked; ``None``: there is no such row."""
    row = session.execute(_BUDGET, {"account": account, "period": period}).one_or_none()
    return None if row is None else (Amount(row[0], row[1]), Amount(row[2], row[3]))


def open_budget(session: Session, account: str, period: str, spent: Amount) -> None:
    """Enter a budget of which so much is spent, unless another service has just done so."""
    values = dict(zip(_MONEY, (spent.tokens, spent.money, 0, 0), strict=True))
    session.execute(_opening(dialect_of(session)), {"account": account, "period": period, **values})


def change_budgets(session: Session, changes: Iterable[tuple[str, str, Amount, Amount]]) -> None:
    """Add to what is spent and to what is leased, by account and period."""
    rows = [
        {
            "of_account": account,
            "of_period": period,
            "more_spent_tokens": spent.tokens,
            "more_spent_money": spent.money,
            "more_leased_tokens": leased.tokens,
            "more_leased_money": leased.money,
        }
        for account, period, spent, leased in changes
        if spent or leased
    ]
    if rows:
        session.execute(_CHANGE, rows)


def change_leases(session: Session, holder: str, changes: Iterable[tuple[Account, str, Amount]]) -> None:
    """Add to what a holder has of budgets."""
    rows = [
        {
            "holder": holder,
            "account": account.id,
            "period": period,
            "team": account.team,
            "tokens": amount.tokens,
            "money": amount.money,
        }
        for account, period, amount in changes
        if amount != NOTHING
    ]
    if rows:
        session.execute(_leasing(dialect_of(session)), rows)


def forget_emptied(session: Session, holder: str) -> None:
    """Remove the slices of which nothing is left."""
    session.execute(_EMPTIED, {"of_holder": holder})


def add_usage(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows of usage, some at a time: on one core a thread that inserts holds the event loop up meanwhile."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        session.execute(_ROWS, rows[start : start + _ROWS_AT_ONCE])


def add_days(session: Session, days: Collection[Mapping[str, Any]]) -> None:
    """Add to the sums of days; each row has all of ``DAY``, ``SUMS`` and ``ESTIMATES``."""
    if days:
        session.execute(_summing(dialect_of(session)), list(days))


@cache
def _opening(dialect: str) -> Any:
    return insertion_for(dialect, BUDGETS).on_conflict_do_nothing()


@cache
def _leasing(dialect: str) -> Any:
    return _adding(insertion_for(dialect, LEASES), LEASES, ("holder", "account", "period"), ("tokens", "money"))


@cache
def _summing(dialect: str) -> Any:
    return _adding(insertion_for(dialect, DAYS), DAYS, DAY, (*SUMS, *ESTIMATES))


def _adding(statement: Any, table: Table, place: tuple[str, ...], sums: tuple[str, ...]) -> Any:
    """An INSERT that adds to the row that is there."""
    more = {name: table.c[name] + statement.excluded[name] for name in sums}
    return statement.on_conflict_do_update(index_elements=list(place), set_=more)
