"""Budgets through purses, books and the ledger in SQLite: never overspent, nothing lost, whatever happens when."""

from __future__ import annotations

import asyncio
import atexit
import functools
import shutil
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select

from pagoda.core.settings import Settings
from pagoda.core.storage.records import BudgetRecord, LeaseRecord, UsageDayRecord, UsageRecord
from pagoda.core.storage.store import Store, open_store
from pagoda.service.keys.key import Limits
from pagoda.service.limits.account import NOTHING, Account, Amount
from pagoda.service.limits.books import Books, Pace
from pagoda.service.limits.entries import HolderGone, Row
from pagoda.service.limits.ledger import DIED, Ledger
from pagoda.service.limits.metrics import LimitMetrics
from pagoda.service.limits.purse import Purse

T = TypeVar("T")

KEY = Account("key:k", Limits(budget_tokens=1000, budget_money=700), "t")
TEAM = Account("team:t", Limits(budget_money=900), "t")
SILENCE = 60.0


def row(amount: Amount, now: float) -> Row:
    return Row(
        at=now, key_id="k", team="t", model="m", endpoint="/v1", prompt=amount.tokens, cached=0, completion=0,
        money=amount.money, status="ok", estimated=False, request_id="r",
    )  # fmt: skip


@functools.cache
def migrated() -> Path:
    """A new database, made once."""
    folder = Path(tempfile.mkdtemp(prefix="budgets-"))
    atexit.register(shutil.rmtree, folder)

    async def make() -> None:
        async with open_store(Settings(home=folder)):
            pass

    asyncio.run(make())
    return folder / "pagoda.db"


class Gateways(RuleBasedStateMachine):
    """Up to three gateways on one ledger: calls begin and end, books are written, gateways die, freeze and thaw."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        shutil.copy(migrated(), Path(self.folder.name) / "pagoda.db")
        self.store: Store = open_store(Settings(home=Path(self.folder.name)))
        self.wait(self.store.open())
        self.now = 1_800_000_000.0
        self.made = 0
        self.gateways: dict[str, Books] = {}
        self.calls: list[tuple[str, list[Purse], Amount]] = []
        self.settled = NOTHING
        """All that calls used, of gateways that live."""
        self.lost = NOTHING
        """All that dead gateways had not written: they may be charged more, never less."""
        self.unwritten: dict[str, Amount] = {}
        self.dead: set[str] = set()
        for _ in range(2):
            self.begin_gateway()

    def wait(self, work: Awaitable[T]) -> T:
        async def run() -> T:
            return await work

        return self.loop.run_until_complete(run())

    async def records(self) -> Store:
        return self.store

    @precondition(lambda self: len(self.gateways) < 3)
    @rule()
    def begin_gateway(self) -> None:
        self.made += 1
        name = f"g{self.made}"
        pace = Pace(1.0, SILENCE, 1.0)
        books = Books(
            lambda: Ledger(self.records, name, name),
            pace,
            LimitMetrics(CollectorRegistry(), by_key=False),
            lambda: self.now,
        )
        self.wait(books.ledger())
        self.gateways[name] = books
        self.unwritten[name] = NOTHING

    @rule(data=st.data(), tokens=st.integers(1, 400), money=st.integers(0, 300))
    def begin_call(self, data: st.DataObject, tokens: int, money: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.gateways)))
        books, wanted = self.gateways[name], Amount(tokens, money)
        purses = [books.purse(KEY), books.purse(TEAM)]

        async def begin() -> bool:
            for purse in purses:
                books._dry.pop(purse, None)  # the machine's seconds are not the clock's
                await books.fill(purse, wanted, wanted)
            if any(purse.lacks(wanted) for purse in purses):
                return False
            return all(purse.reserve(wanted) for purse in purses)

        if self.wait(begin()):
            self.calls.append((name, purses, wanted))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), share=st.floats(0, 1))
    def end_call(self, data: st.DataObject, share: float) -> None:
        name, purses, reserved = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        used = Amount(int(reserved.tokens * share), int(reserved.money * share))
        for purse in purses:
            purse.settle(reserved, used)
        self.gateways[name].record(row(used, self.now))
        self.unwritten[name] += used
        self.settled += used

    @rule(data=st.data(), patience=st.sampled_from([-1, 0, 2]))
    def flush(self, data: st.DataObject, patience: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.gateways)))
        self.wait(self.live(name, patience))
        self.unwritten[name] = NOTHING
        self.dead.discard(name)

    async def live(self, name: str, patience: int) -> None:
        """A turn of the writer: write, and say that one lives."""
        books = self.gateways[name]
        await books.flush(patience)
        try:
            await (await books.ledger()).beat(self.now)
        except HolderGone:
            await books._revive()

    @precondition(lambda self: len(self.gateways) > 1)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        """Like kill -9: what was in memory is gone, what it held is charged when the silence was long enough."""
        name = data.draw(st.sampled_from(sorted(self.gateways)))
        del self.gateways[name]
        self.calls = [call for call in self.calls if call[0] != name]
        gone = self.unwritten.pop(name)
        self.settled -= gone
        self.lost += gone

    @rule(data=st.data())
    def silence(self, data: st.DataObject) -> None:
        """All but one gateway are frozen for longer than the lease; that one buries them, and some live on."""
        self.now += SILENCE + 1
        name = data.draw(st.sampled_from(sorted(self.gateways)))
        self.wait(self.gateways[name].flush())
        self.unwritten[name] = NOTHING

        async def bury() -> list[str]:
            return await (await self.gateways[name].ledger()).bury(self.now, SILENCE)

        self.dead |= set(self.wait(bury()))

    @rule(seconds=st.integers(1, 50))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def never_overspent(self) -> None:
        async def look() -> list[BudgetRecord]:
            async with self.store.read() as session:
                return list(await session.scalars(select(BudgetRecord)))

        for budget in self.wait(look()):
            limits = (KEY if budget.account == KEY.id else TEAM).limits
            if limits.budget_tokens is not None:
                assert budget.spent_tokens + budget.leased_tokens <= limits.budget_tokens
                assert budget.leased_tokens >= 0
            assert limits.budget_money is not None
            assert budget.spent_money + budget.leased_money <= limits.budget_money
            assert budget.leased_money >= 0

    @invariant()
    def the_ledger_knows_what_is_held(self) -> None:
        async def look() -> dict[tuple[str, str], Amount]:
            async with self.store.read() as session:
                rows = await session.scalars(select(LeaseRecord))
                return {(row.holder, row.account): Amount(row.tokens, row.money) for row in rows}

        leases = self.wait(look())
        for name, books in self.gateways.items():
            for purse in books._purses.values():
                if name not in self.dead:
                    assert leases.get((name, purse.account.id), NOTHING) == purse.leased

    def teardown(self) -> None:
        """In the end: the living write, the dead are buried, and every sum agrees with every other."""
        for books in self.gateways.values():
            self.wait(books.flush())
        for name, purses, reserved in self.calls:
            for purse in purses:
                purse.settle(reserved, NOTHING)
            self.gateways[name].record(row(NOTHING, self.now))
        self.wait(self.check())
        self.wait(self.store.close())
        self.loop.close()
        self.folder.cleanup()

    async def check(self) -> None:
        self.now += SILENCE + 1
        for books in self.gateways.values():
            await books._keep_alive(await books.ledger())
        for books in self.gateways.values():
            await books._keep_alive(await books.ledger())  # those whom the first buried have come back
            await books.flush(-1)
        async with self.store.read() as session:
            assert list(await session.scalars(select(LeaseRecord))) == []
            sums = select(func.sum(UsageRecord.prompt_tokens), func.sum(UsageRecord.money))
            counted = Amount(
                *(int(part or 0) for part in (await session.execute(sums.where(UsageRecord.status != DIED))).one())
            )
            key_died = sums.where(UsageRecord.status == DIED, UsageRecord.account == KEY.id)
            died = Amount(*(int(part or 0) for part in (await session.execute(key_died)).one()))
            days = select(func.sum(UsageDayRecord.prompt_tokens), func.sum(UsageDayRecord.money))
            by_day = Amount(*(int(part or 0) for part in (await session.execute(days)).one()))
            budget = await session.get(BudgetRecord, (KEY.id, "total"))
        assert counted == self.settled
        assert by_day == counted + died
        assert died.tokens >= self.lost.tokens
        assert died.money >= self.lost.money
        if budget is not None:
            assert Amount(budget.spent_tokens, budget.spent_money) == counted + died
            assert (budget.leased_tokens, budget.leased_money) == (0, 0)


TestGateways = Gateways.TestCase
TestGateways.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
