"""The ledger of usage and budgets in the database: what is spent, and which service holds how much of the rest.

A service leases a slice of a budget in one transaction, spends it in memory, and writes what was used together with the
rows of usage, each batch once. So what is spent and what is leased never pass the budget, whoever dies when. The slices
of a service that died are charged in full and marked estimated, until it turns out to live after all (``revive``) or
somebody corrects the row (``correct``). Times are given; nothing here waits for anything but the database.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from pagoda.core.errors import Conflict, NotFound
from pagoda.core.storage.records import HolderRecord, LeaseRecord, UsageDayRecord, UsageRecord
from pagoda.core.storage.store import Store, mapped
from pagoda.core.storage.upsert import insertion
from pagoda.service.limits.account import NOTHING, Account, Amount
from pagoda.service.limits.entries import Batch, HolderGone, Row, Taken, Wish
from pagoda.service.limits.statements import (
    DAY,
    ESTIMATES,
    SUMS,
    add_days,
    add_usage,
    batch_of,
    budget_at,
    change_budgets,
    change_leases,
    forget_emptied,
    mark_alive,
    open_budget,
)

T = TypeVar("T")

DIED = "died"
"""Status of a row that charges what a dead service held."""


class Ledger:
    """The books, as one service process (``holder``, at ``place``) keeps them."""

    def __init__(self, records: Callable[[], Awaitable[Store]], holder: str, place: str) -> None:
        self.holder = holder
        self._records = records
        self._place = place

    async def register(self, now: float) -> None:
        """Enter this process; whoever was at its place before is dead."""

        def change(session: Session) -> None:
            there = select(HolderRecord.id).where(HolderRecord.place == self._place, HolderRecord.id != self.holder)
            for dead in list(session.scalars(there)):
                _bury(session, dead, now)
            _enter(session, self.holder, self._place, now, 0)

        await self._write(change)

    async def leave(self) -> None:
        """Remove this process, which holds nothing any more."""

        def change(session: Session) -> None:
            held = session.scalar(select(func.count()).where(LeaseRecord.holder == self.holder))
            if not held:
                session.execute(delete(HolderRecord).where(HolderRecord.id == self.holder))

        await self._write(change)

    async def beat(self, now: float) -> None:
        """Say that this process lives. Raises ``HolderGone``."""

        def change(session: Session) -> None:
            mark_alive(session, self.holder, _time(now), _batch_of(session, self.holder))

        await self._write(change)

    async def living(self, now: float, silence: float) -> list[str]:
        """The holders that were heard of within ``silence`` seconds."""
        async with (await self._records()).read() as session:
            edge = _time(now - silence)
            return list(await session.scalars(select(HolderRecord.id).where(HolderRecord.seen >= edge)))

    async def take(self, account: Account, period: str, wish: Wish) -> Taken:
        """Lease a slice: a quarter of what is left, within the wish; nothing where not even its least is left.

        Raises ``HolderGone``.
        """

        def change(session: Session) -> Taken:
            _batch_of(session, self.holder)
            spent, leased = _budget(session, account.id, period)
            limits, gone = account.limits, spent + leased
            tokens = _slice(limits.budget_tokens, gone.tokens, _tokens(wish))
            money = _slice(limits.budget_money, gone.money, _money(wish))
            granted = NOTHING if tokens is None or money is None else Amount(tokens, money)
            change_leases(session, self.holder, [(account, period, granted)])
            change_budgets(session, [(account.id, period, NOTHING, granted)])
            return Taken(granted, spent, leased + granted)

        return await self._write(change)

    async def write(self, batch: Batch, now: float) -> None:
        """Write a batch, unless it was written already. Raises ``HolderGone``."""

        def change(session: Session) -> None:
            if _batch_of(session, self.holder) >= batch.number:
                return  # the answer of the first attempt was lost
            mark_alive(session, self.holder, _time(now), batch.number)
            changes = sorted(batch.changes, key=lambda each: (each.account.id, each.period))  # no deadlocks
            for each in changes:  # before the rows, which a new budget would count as older usage
                _budget(session, each.account.id, each.period)
            _add_rows(session, [_values(row) for row in batch.rows])
            less = [(each, NOTHING - each.returned) for each in changes]
            change_budgets(session, [(each.account.id, each.period, each.spent, back) for each, back in less])
            change_leases(session, self.holder, [(each.account, each.period, back) for each, back in less])
            forget_emptied(session, self.holder)

        await self._write(change)

    async def bury(self, now: float, silence: float) -> list[str]:
        """Charge what those hold of whom nothing was heard for ``silence`` seconds; who they were."""
        edge = _time(now - silence)
        async with (await self._records()).read() as session:
            late = list(await session.scalars(select(HolderRecord.id).where(HolderRecord.seen < edge)))
        late = [each for each in late if each != self.holder]

        def change(session: Session) -> list[str]:
            dead = []
            for holder in late:
                still = select(HolderRecord).where(HolderRecord.id == holder, HolderRecord.seen < edge)
                if session.scalar(still.with_for_update()) is not None:
                    _bury(session, holder, now)
                    dead.append(holder)
            return dead

        return await self._write(change) if late else []

    async def revive(self, held: Iterable[tuple[Account, str, Amount]], number: int, now: float) -> None:
        """Take back what was charged for this process as dead, and lease it what it really holds."""
        holding = list(held)

        def change(session: Session) -> None:
            _enter(session, self.holder, self._place, now, number)
            charged = select(UsageRecord).where(UsageRecord.holder == self.holder, UsageRecord.estimated)
            for row in list(session.scalars(charged)):
                _recharge(session, row, NOTHING)
                session.delete(row)
            for account, period, amount in holding:
                _budget(session, account.id, period)
                change_budgets(session, [(account.id, period, NOTHING, amount)])
                change_leases(session, self.holder, [(account, period, amount)])

        await self._write(change)

    async def correct(self, usage_id: int, tokens: int, money: int) -> None:
        """Put what was really used in the place of an estimate. Raises ``NotFound``, ``Conflict``."""

        def change(session: Session) -> None:
            row = session.get(UsageRecord, usage_id, with_for_update=True)
            if row is None:
                raise NotFound(f"There is no usage {usage_id}.", param="id")
            if not row.estimated:
                raise Conflict(f"Usage {usage_id} was counted, not estimated; it needs no correction.", param="id")
            _recharge(session, row, Amount(tokens, money))
            row.prompt_tokens, row.cached_tokens, row.completion_tokens = tokens, 0, 0
            row.money, row.estimated = money, False

        await self._write(change)

    async def standing(self, account: str, period: str) -> tuple[Amount, Amount]:
        """What is spent and what is leased of a budget."""
        async with (await self._records()).read() as session:
            return await session.run_sync(budget_at, account, period) or (NOTHING, NOTHING)

    async def _write(self, change: Callable[[Session], T]) -> T:
        return await (await self._records()).apply(mapped(change))


def _tokens(wish: Wish) -> tuple[int, int, int]:
    return wish.least.tokens, wish.wanted.tokens, wish.most.tokens


def _money(wish: Wish) -> tuple[int, int, int]:
    return wish.least.money, wish.wanted.money, wish.most.money


def _slice(bound: int | None, gone: int, wish: tuple[int, int, int]) -> int | None:
    """How much to hand out: ``None`` where the least is not there."""
    if bound is None:
        return 0
    least, wanted, most = wish
    left = bound - gone
    return None if left < least else max(0, min(left, most, max(wanted, left // 4)))


def _time(now: float) -> datetime:
    return datetime.fromtimestamp(now, UTC)


def _batch_of(session: Session, holder: str) -> int:
    number = batch_of(session, holder)
    if number is None:
        raise HolderGone
    return number


def _enter(session: Session, holder: str, place: str, now: float, number: int) -> None:
    values = {"place": place, "seen": _time(now), "batch": number}
    statement = insertion(session, HolderRecord).values(id=holder, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))


def _budget(session: Session, account: str, period: str) -> tuple[Amount, Amount]:
    """What is spent and leased of a budget, its row locked; a new one begins with what was used in its period before
    there was a budget."""
    if (found := budget_at(session, account, period)) is not None:
        return found
    kind, _, name = account.partition(":")
    column = UsageDayRecord.key_id if kind == "key" else UsageDayRecord.team
    sums = select(
        func.coalesce(func.sum(UsageDayRecord.prompt_tokens + UsageDayRecord.completion_tokens), 0),
        func.coalesce(func.sum(UsageDayRecord.money), 0),
    ).where(column == name)
    if period != "total":
        sums = sums.where(UsageDayRecord.day.startswith(period))
    tokens, money = session.execute(sums).one()
    open_budget(session, account, period, Amount(int(tokens), int(money)))
    return _budget(session, account, period)


def _bury(session: Session, holder: str, now: float) -> None:
    """Charge all that a dead holder has, and forget it."""
    session.execute(delete(HolderRecord).where(HolderRecord.id == holder))
    leases = select(LeaseRecord).where(LeaseRecord.holder == holder).order_by(LeaseRecord.account, LeaseRecord.period)
    rows = []
    for lease in list(session.scalars(leases)):
        held = Amount(lease.tokens, lease.money)
        change_budgets(session, [(lease.account, lease.period, held, NOTHING - held)])
        kind, _, name = lease.account.partition(":")
        row = Row(
            at=now,
            key_id=name if kind == "key" else "",
            team=lease.team,
            model="",
            endpoint="",
            prompt=held.tokens,
            cached=0,
            completion=0,
            money=held.money,
            status=DIED,
            estimated=True,
            request_id="",
            requests=0,
        )
        rows.append(_values(row) | {"holder": holder, "account": lease.account, "period": lease.period})
        session.delete(lease)
    _add_rows(session, rows)


def _recharge(session: Session, row: UsageRecord, used: Amount) -> None:
    """Take an estimate out of the sums and put in what was used."""
    more = used - Amount(row.prompt_tokens + row.completion_tokens, row.money)
    if row.account is not None and row.period is not None:
        places = [(row.account, row.period)]
    else:
        accounts = (f"key:{row.key_id}", f"team:{row.team}")
        places = [(account, period) for account in accounts for period in ("total", row.day[:7], row.day)]
    change_budgets(session, [(*place, more, NOTHING) for place in places])
    if row.key_id:
        sums = (0, used.tokens - row.prompt_tokens, -row.cached_tokens, -row.completion_tokens, more.money)
        estimates = (-(row.prompt_tokens + row.completion_tokens), -row.money)
        add_days(session, [_day((row.day, row.key_id, row.team, row.model), sums, estimates)])


def _add_rows(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows of usage and add them to their days. A dead service's slice of a team's budget is no key's usage."""
    if not rows:
        return
    add_usage(session, rows)
    days: dict[tuple[Any, ...], tuple[list[int], list[int]]] = {}
    for row in rows:
        if row["key_id"]:
            place = (row["day"], row["key_id"], row["team"], row["model"])
            sums, estimates = days.setdefault(place, ([0] * len(SUMS), [0, 0]))
            for index, name in enumerate(SUMS):
                sums[index] += row[name]
            if row["estimated"]:
                estimates[0] += row["prompt_tokens"] + row["completion_tokens"]
                estimates[1] += row["money"]
    add_days(session, [_day(place, *days[place]) for place in sorted(days)])


def _day(place: Sequence[str], sums: Sequence[int], estimates: Sequence[int]) -> dict[str, Any]:
    return dict(zip((*DAY, *SUMS, *ESTIMATES), (*place, *sums, *estimates), strict=True))


def _values(row: Row) -> dict[str, Any]:
    at = _time(row.at)
    return {
        "at": at,
        "day": _day_name(int(row.at // 86_400)),
        "key_id": row.key_id,
        "team": row.team,
        "model": row.model,
        "endpoint": row.endpoint,
        "requests": row.requests,
        "prompt_tokens": row.prompt,
        "cached_tokens": row.cached,
        "completion_tokens": row.completion,
        "money": row.money,
        "status": row.status,
        "estimated": row.estimated,
        "request_id": row.request_id,
    }


@lru_cache(maxsize=8)
def _day_name(day: int) -> str:
    """The date of a day since 1970, in UTC: the same for most rows, and dear to spell."""
    return _time(day * 86_400).strftime("%Y-%m-%d")
