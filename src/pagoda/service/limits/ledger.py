"""The ledger of usage and budgets in the database: what is spent, and which service holds how much of the rest.

A service leases a slice of a budget in one transaction, spends it in memory, and writes what was used together with the
rows of usage, each batch once. So what is spent and what is leased never pass the budget, whoever dies when. The slices
of a service that died are charged in full and marked estimated, until it turns out to live after all (``revive``) or
somebody corrects the row (``correct``). Times are given; nothing here waits for anything but the database.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from pagoda.core.errors import Conflict, NotFound
from pagoda.core.storage.records import BudgetRecord, HolderRecord, LeaseRecord, UsageDayRecord, UsageRecord
from pagoda.core.storage.store import Store
from pagoda.core.storage.upsert import insertion
from pagoda.service.limits.account import NOTHING, Account, Amount
from pagoda.service.limits.entries import Batch, HolderGone, Row, Taken, Wish

DIED = "died"
"""Status of a row that charges what a dead service held."""
_DAY_SUMS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "money")


class Ledger:
    """The books, as one service process (``holder``, at ``place``) keeps them."""

    def __init__(self, records: Callable[[], Awaitable[Store]], holder: str, place: str) -> None:
        self.holder = holder
        self._records = records
        self._place = place

    async def register(self, now: float) -> None:
        """Enter this process; whoever was at its place before is dead."""

        async def change(session: AsyncSession) -> None:
            there = select(HolderRecord.id).where(HolderRecord.place == self._place, HolderRecord.id != self.holder)
            for dead in list(await session.scalars(there)):
                await _bury(session, dead, now)
            await _enter(session, self.holder, self._place, now, 0)

        await self._write(change)

    async def leave(self) -> None:
        """Remove this process, which holds nothing any more."""

        async def change(session: AsyncSession) -> None:
            held = await session.scalar(select(func.count()).where(LeaseRecord.holder == self.holder))
            if not held:
                await session.execute(delete(HolderRecord).where(HolderRecord.id == self.holder))

        await self._write(change)

    async def beat(self, now: float) -> None:
        """Say that this process lives. Raises ``HolderGone``."""

        async def change(session: AsyncSession) -> None:
            (await _holder(session, self.holder)).seen = _time(now)

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

        async def change(session: AsyncSession) -> Taken:
            await _holder(session, self.holder)
            budget = await _budget(session, account.id, period)
            limits = account.limits
            tokens = _slice(limits.budget_tokens, budget.spent_tokens + budget.leased_tokens, _tokens(wish))
            money = _slice(limits.budget_money, budget.spent_money + budget.leased_money, _money(wish))
            granted = NOTHING if tokens is None or money is None else Amount(tokens, money)
            if granted:
                await _lease(session, self.holder, account, period, granted)
                budget.leased_tokens += granted.tokens
                budget.leased_money += granted.money
            return Taken(
                granted,
                Amount(budget.spent_tokens, budget.spent_money),
                Amount(budget.leased_tokens, budget.leased_money),
            )

        taken: Taken = await self._write(change)
        return taken

    async def write(self, batch: Batch, now: float) -> None:
        """Write a batch, unless it was written already. Raises ``HolderGone``."""

        async def change(session: AsyncSession) -> None:
            holder = await _holder(session, self.holder)
            if holder.batch >= batch.number:
                return  # the answer of the first attempt was lost
            holder.batch, holder.seen = batch.number, _time(now)
            changes = sorted(batch.changes, key=lambda each: (each.account.id, each.period))  # no deadlocks
            for each in changes:  # before the rows, which a new budget would count as older usage
                await _budget(session, each.account.id, each.period)
            await _add_rows(session, [_values(row) for row in batch.rows])
            for each in changes:
                await _apply(session, each.account.id, each.period, each.spent, each.returned)
                await _lease(session, self.holder, each.account, each.period, NOTHING - each.returned)
            nothing = (LeaseRecord.tokens == 0, LeaseRecord.money == 0)
            await session.execute(delete(LeaseRecord).where(LeaseRecord.holder == self.holder, *nothing))

        await self._write(change)

    async def bury(self, now: float, silence: float) -> list[str]:
        """Charge what those hold of whom nothing was heard for ``silence`` seconds; who they were."""
        edge = _time(now - silence)
        async with (await self._records()).read() as session:
            late = list(await session.scalars(select(HolderRecord.id).where(HolderRecord.seen < edge)))
        late = [each for each in late if each != self.holder]

        async def change(session: AsyncSession) -> list[str]:
            dead = []
            for holder in late:
                still = select(HolderRecord).where(HolderRecord.id == holder, HolderRecord.seen < edge)
                if await session.scalar(still.with_for_update()) is not None:
                    await _bury(session, holder, now)
                    dead.append(holder)
            return dead

        return await self._write(change) if late else []

    async def revive(self, held: Iterable[tuple[Account, str, Amount]], number: int, now: float) -> None:
        """Take back what was charged for this process as dead, and lease it what it really holds."""
        holding = list(held)

        async def change(session: AsyncSession) -> None:
            await _enter(session, self.holder, self._place, now, number)
            charged = select(UsageRecord).where(UsageRecord.holder == self.holder, UsageRecord.estimated)
            for row in list(await session.scalars(charged)):
                await _recharge(session, row, NOTHING)
                await session.delete(row)
            for account, period, amount in holding:
                budget = await _budget(session, account.id, period)
                budget.leased_tokens += amount.tokens
                budget.leased_money += amount.money
                await _lease(session, self.holder, account, period, amount)

        await self._write(change)

    async def correct(self, usage_id: int, tokens: int, money: int) -> None:
        """Put what was really used in the place of an estimate. Raises ``NotFound``, ``Conflict``."""

        async def change(session: AsyncSession) -> None:
            row = await session.get(UsageRecord, usage_id, with_for_update=True)
            if row is None:
                raise NotFound(f"There is no usage {usage_id}.", param="id")
            if not row.estimated:
                raise Conflict(f"Usage {usage_id} was counted, not estimated; it needs no correction.", param="id")
            await _recharge(session, row, Amount(tokens, money))
            row.prompt_tokens, row.cached_tokens, row.completion_tokens = tokens, 0, 0
            row.money, row.estimated = money, False

        await self._write(change)

    async def standing(self, account: str, period: str) -> tuple[Amount, Amount]:
        """What is spent and what is leased of a budget."""
        async with (await self._records()).read() as session:
            budget = await session.get(BudgetRecord, (account, period))
            if budget is None:
                return NOTHING, NOTHING
            return Amount(budget.spent_tokens, budget.spent_money), Amount(budget.leased_tokens, budget.leased_money)

    async def _write(self, change: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
        return await (await self._records()).write(change)


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


def _at(table: Any, account: str, period: str) -> tuple[Any, Any]:
    return table.account == account, table.period == period


async def _holder(session: AsyncSession, holder: str) -> HolderRecord:
    found = await session.get(HolderRecord, holder, with_for_update=True)
    if found is None:
        raise HolderGone
    return found


async def _enter(session: AsyncSession, holder: str, place: str, now: float, number: int) -> None:
    values = {"place": place, "seen": _time(now), "batch": number}
    statement = insertion(session, HolderRecord).values(id=holder, **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))


async def _budget(session: AsyncSession, account: str, period: str) -> BudgetRecord:
    """The row of a budget, locked; a new one begins with what was used in its period before there was a budget."""
    found = await session.get(BudgetRecord, (account, period), with_for_update=True)
    if found is not None:
        return found
    kind, _, name = account.partition(":")
    column = UsageDayRecord.key_id if kind == "key" else UsageDayRecord.team
    sums = select(
        func.coalesce(func.sum(UsageDayRecord.prompt_tokens + UsageDayRecord.completion_tokens), 0),
        func.coalesce(func.sum(UsageDayRecord.money), 0),
    ).where(column == name)
    if period != "total":
        sums = sums.where(UsageDayRecord.day.startswith(period))
    tokens, money = (await session.execute(sums)).one()
    await session.execute(
        insertion(session, BudgetRecord)
        .values(
            account=account,
            period=period,
            spent_tokens=int(tokens),
            spent_money=int(money),
            leased_tokens=0,
            leased_money=0,
        )
        .on_conflict_do_nothing()
    )
    return await session.get_one(BudgetRecord, (account, period), with_for_update=True)


async def _lease(session: AsyncSession, holder: str, account: Account, period: str, amount: Amount) -> None:
    statement = insertion(session, LeaseRecord).values(
        holder=holder, account=account.id, period=period, team=account.team, tokens=amount.tokens, money=amount.money
    )
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["holder", "account", "period"],
            set_={"tokens": LeaseRecord.tokens + amount.tokens, "money": LeaseRecord.money + amount.money},
        )
    )


async def _apply(session: AsyncSession, account: str, period: str, spent: Amount, returned: Amount) -> None:
    await session.execute(
        update(BudgetRecord)
        .where(*_at(BudgetRecord, account, period))
        .values(
            spent_tokens=BudgetRecord.spent_tokens + spent.tokens,
            spent_money=BudgetRecord.spent_money + spent.money,
            leased_tokens=BudgetRecord.leased_tokens - returned.tokens,
            leased_money=BudgetRecord.leased_money - returned.money,
        )
    )


async def _bury(session: AsyncSession, holder: str, now: float) -> None:
    """Charge all that a dead holder has, and forget it."""
    await session.execute(delete(HolderRecord).where(HolderRecord.id == holder))
    leases = select(LeaseRecord).where(LeaseRecord.holder == holder).order_by(LeaseRecord.account, LeaseRecord.period)
    rows = []
    for lease in list(await session.scalars(leases)):
        held = Amount(lease.tokens, lease.money)
        await _apply(session, lease.account, lease.period, held, held)
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
        await session.delete(lease)
    await _add_rows(session, rows)


async def _recharge(session: AsyncSession, row: UsageRecord, used: Amount) -> None:
    """Take an estimate out of the sums and put in what was used."""
    more = used - Amount(row.prompt_tokens + row.completion_tokens, row.money)
    if row.account is not None and row.period is not None:
        await _apply(session, row.account, row.period, more, NOTHING)
    else:
        for account in (f"key:{row.key_id}", f"team:{row.team}"):
            for period in ("total", row.day[:7], row.day):
                await _apply(session, account, period, more, NOTHING)
    if row.key_id:
        where = {"day": row.day, "key_id": row.key_id, "team": row.team, "model": row.model}
        sums = (0, used.tokens - row.prompt_tokens, -row.cached_tokens, -row.completion_tokens, more.money)
        estimates = (-(row.prompt_tokens + row.completion_tokens), -row.money)
        await _add_day(session, where, sums, estimates)


async def _add_rows(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows of usage and add them to their days. A dead service's slice of a team's budget is no key's usage."""
    if not rows:
        return
    await session.execute(insert(UsageRecord), list(rows))
    days: dict[tuple[Any, ...], tuple[list[int], list[int]]] = {}
    for row in rows:
        if row["key_id"]:
            place = (row["day"], row["key_id"], row["team"], row["model"])
            sums, estimates = days.setdefault(place, ([0] * len(_DAY_SUMS), [0, 0]))
            for index, name in enumerate(_DAY_SUMS):
                sums[index] += row[name]
            if row["estimated"]:
                estimates[0] += row["prompt_tokens"] + row["completion_tokens"]
                estimates[1] += row["money"]
    for place in sorted(days):
        where = dict(zip(("day", "key_id", "team", "model"), place, strict=True))
        await _add_day(session, where, *days[place])


async def _add_day(session: AsyncSession, where: dict[str, str], sums: Sequence[int], estimates: Sequence[int]) -> None:
    names = (*_DAY_SUMS, "estimated_tokens", "estimated_money")
    more = dict(zip(names, (*sums, *estimates), strict=True))
    statement = insertion(session, UsageDayRecord).values(**where, **more)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=list(where), set_={name: getattr(UsageDayRecord, name) + more[name] for name in names}
        )
    )


def _values(row: Row) -> dict[str, Any]:
    at = _time(row.at)
    return {
        "at": at,
        "day": at.strftime("%Y-%m-%d"),
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
        "holder": None,
        "account": None,
        "period": None,
    }
