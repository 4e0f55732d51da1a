"""What was used, by whom, of what, when: sums over the days of the ledger, exact to the token and the billionth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from sqlalchemy import func, select

from pagoda.core.storage.records import UsageDayRecord
from pagoda.core.storage.store import Store
from pagoda.service.limits.prices import spell_money

Group: TypeAlias = Literal["key", "team", "model", "day"]
GROUPS: dict[Group, Any] = {
    "key": UsageDayRecord.key_id,
    "team": UsageDayRecord.team,
    "model": UsageDayRecord.model,
    "day": UsageDayRecord.day,
}
_SUMS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "money")
_ESTIMATES = ("estimated_tokens", "estimated_money")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which usage, and how it is grouped. Days in UTC, as ``2026-11-22``, both included."""

    key: str | None = None
    team: str | None = None
    model: str | None = None
    since: str | None = None
    until: str | None = None
    by: Sequence[Group] = ("key", "model", "day")


async def usage_report(store: Store, question: Question, currency: str) -> dict[str, Any]:
    """Rows by what was asked for, and the total. Money is in billionths, and spelled for people."""
    columns = [GROUPS[name].label(name) for name in question.by]
    sums = [func.sum(getattr(UsageDayRecord, name)).label(name) for name in (*_SUMS, *_ESTIMATES)]
    statement = select(*columns, *sums)
    for name in ("key", "team", "model"):
        if (wanted := asdict(question)[name]) is not None:
            statement = statement.where(GROUPS[name] == wanted)
    if question.since is not None:
        statement = statement.where(UsageDayRecord.day >= question.since)
    if question.until is not None:
        statement = statement.where(UsageDayRecord.day <= question.until)
    if columns:
        statement = statement.group_by(*columns).order_by(*columns)
    async with store.read() as session:
        found = (await session.execute(statement)).mappings().all()
    rows = [_row(dict(row), currency) for row in found]
    total = {name: sum(row[name] for row in rows) for name in (*_SUMS, *_ESTIMATES)}
    return {"currency": currency, "by": list(question.by), "rows": rows, "total": _row(total, currency)}


def _row(values: dict[str, Any], currency: str) -> dict[str, Any]:
    row = {name: int(value or 0) if name in (*_SUMS, *_ESTIMATES) else value for name, value in values.items()}
    return row | {"cost": spell_money(row["money"], currency)}
