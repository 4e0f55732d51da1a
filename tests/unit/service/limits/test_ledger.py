"""The ledger by itself: slices, batches written once, the dead charged, estimates corrected; and the database away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select

from pagoda.core.errors import Conflict, NotFound, StoreError
from pagoda.core.settings import Settings
from pagoda.core.storage.records import UsageDayRecord, UsageRecord
from pagoda.core.storage.store import Store, open_store
from pagoda.service.keys.key import Limits
from pagoda.service.limits import books as books_module
from pagoda.service.limits.account import NOTHING, Account, Amount
from pagoda.service.limits.books import Books, Pace
from pagoda.service.limits.entries import Batch, Change, Row, Wish
from pagoda.service.limits.ledger import DIED, Ledger
from pagoda.service.limits.metrics import LimitMetrics

KEY = Account("key:k", Limits(budget_tokens=1000), "t")
NOW = 1_800_000_000.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(Settings(home=tmp_path)) as opened:
        yield opened


def ledger(store: Store, name: str = "g1", place: str = "here") -> Ledger:
    async def records() -> Store:
        return store

    return Ledger(records, name, place)


def row(tokens: int, request_id: str = "r", key: str = "k") -> Row:
    return Row(
        at=NOW, key_id=key, team="t", model="m", endpoint="/v1", prompt=tokens, cached=0, completion=0, money=0,
        status="cancelled", estimated=True, request_id=request_id,
    )  # fmt: skip


def wish(least: int, wanted: int, most: int) -> Wish:
    return Wish(Amount(least), Amount(wanted), Amount(most))


async def test_a_slice_is_a_quarter_of_what_is_left_or_what_is_needed(store: Store) -> None:
    books = ledger(store)
    await books.register(NOW)
    assert (await books.take(KEY, "total", wish(1, 10, 5000))).granted == Amount(250)
    assert (await books.take(KEY, "total", wish(1, 10, 20))).granted == Amount(20)
    assert (await books.take(KEY, "total", wish(1, 600, 5000))).granted == Amount(600)
    assert (await books.take(KEY, "total", wish(1, 200, 5000))).granted == Amount(130)
    refused = await books.take(KEY, "total", wish(1, 10, 10))
    assert (refused.granted, refused.spent, refused.leased) == (NOTHING, NOTHING, Amount(1000))


async def test_a_batch_is_written_once_however_often_it_is_sent(store: Store) -> None:
    books = ledger(store)
    await books.register(NOW)
    await books.take(KEY, "total", wish(1, 100, 100))
    batch = Batch(1, (row(60),), (Change(KEY, "total", Amount(60), Amount(60)),))
    await books.write(batch, NOW)
    await books.write(batch, NOW)
    assert await books.standing("key:k", "total") == (Amount(60), Amount(40))
    async with store.read() as session:
        assert len(list(await session.scalars(select(UsageRecord)))) == 1


async def test_who_comes_to_the_same_place_finds_the_dead_charged_in_full_until_corrected(store: Store) -> None:
    dead = ledger(store)
    await dead.register(NOW)
    await dead.take(KEY, "total", wish(1, 100, 100))
    alive = ledger(store, "g2")
    await alive.register(NOW + 1)
    assert await alive.standing("key:k", "total") == (Amount(100), NOTHING)
    async with store.read() as session:
        (charged,) = await session.scalars(select(UsageRecord))
    assert (charged.status, charged.estimated, charged.prompt_tokens, charged.holder) == (DIED, True, 100, "g1")
    await alive.correct(charged.id, 30, 0)
    assert await alive.standing("key:k", "total") == (Amount(30), NOTHING)
    async with store.read() as session:
        (day,) = await session.scalars(select(UsageDayRecord))
    assert (day.prompt_tokens, day.estimated_tokens, day.requests) == (30, 0, 0)
    with pytest.raises(Conflict):
        await alive.correct(charged.id, 1, 0)
    with pytest.raises(NotFound):
        await alive.correct(10_000, 1, 0)


async def test_a_budget_that_is_set_later_begins_with_what_was_used(store: Store) -> None:
    books = ledger(store)
    await books.register(NOW)
    await books.write(Batch(1, (row(700), row(55, key="other")), ()), NOW)
    taken = await books.take(KEY, "total", wish(1, 10, 10))
    assert taken.spent == Amount(700)
    taken = await books.take(
        Account("key:k", Limits(budget_tokens=1000, period="month"), "t"), "2027-01", wish(1, 1, 1)
    )
    assert taken.spent == Amount(700)
    taken = await books.take(Account("team:t", Limits(budget_tokens=1000), "t"), "total", wish(1, 1, 1))
    assert taken.spent == Amount(755)


class Broken:
    """A database that is away until it is mended."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.away = True

    async def records(self) -> Store:
        if self.away:
            raise StoreError("The database is away.", code="store_gone", retryable=True)
        return self.store


async def test_while_the_database_is_away_rows_are_summed_up_and_none_is_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books_module, "MOST_ROWS", 10)
    broken = Broken(store)
    pace = Pace(0.01, 60.0, 1.0)
    books = Books(lambda: Ledger(broken.records, "g1", "here"), pace, LimitMetrics(CollectorRegistry(), by_key=False))
    for number in range(1000):
        books.record(row(number, str(number)))
    with pytest.raises(StoreError):
        await books.flush()
    books._sum_up()
    assert len(books._rows) == 1
    with pytest.raises(StoreError):
        await books.fill(books.purse(KEY), Amount(1), Amount(1))
    books.lend(books.purse(KEY), Amount(300))
    assert books.purse(KEY).reserve(Amount(300))
    books.purse(KEY).settle(Amount(300), Amount(200))
    broken.away = False
    await books.flush()
    async with store.read() as session:
        (written,) = await session.scalars(select(UsageRecord))
    assert (written.requests, written.prompt_tokens) == (1000, sum(range(1000)))
    assert await (await books.ledger()).standing("key:k", "total") == (Amount(200), Amount(100))
    books.start()
    await books.close()
    assert await ledger(store).standing("key:k", "total") == (Amount(200), NOTHING)


async def test_an_empty_budget_is_not_asked_for_again_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ledger(store)
    pace = Pace(0.01, 60.0, 1.0)
    books = Books(lambda: own, pace, LimitMetrics(CollectorRegistry(), by_key=False), time.time)
    purse = books.purse(KEY)
    await books.fill(purse, Amount(1000), Amount(1000))
    assert purse.reserve(Amount(1000))
    asked = 0
    take = own.take

    async def counted(account: Account, period: str, wanted: Wish) -> object:
        nonlocal asked
        asked += 1
        return await take(account, period, wanted)

    monkeypatch.setattr(own, "take", counted)
    for _ in range(50):
        taken = await books.fill(purse, Amount(10), Amount(10))
        assert taken is not None
        assert not taken.granted
    assert asked == 1
    purse.settle(Amount(1000), Amount(400))
    assert await books.fill(purse, Amount(10), Amount(10)) is None


async def test_two_who_write_at_once_take_a_batch_off_the_purse_once(store: Store) -> None:
    own = ledger(store)
    books = Books(lambda: own, Pace(0.01, 60.0, 1.0), LimitMetrics(CollectorRegistry(), by_key=False))
    purse = books.purse(KEY)
    await books.fill(purse, Amount(100), Amount(100))
    assert purse.reserve(Amount(100))
    purse.settle(Amount(100), Amount(70))
    books.record(row(70))
    await asyncio.gather(*(books.flush() for _ in range(5)))
    assert purse.unwritten == NOTHING
    spent, leased = await own.standing("key:k", "total")
    assert (spent, leased) == (Amount(70), purse.leased)


async def test_what_is_recorded_while_a_batch_is_written_waits_for_the_next_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books_module, "_ROWS_A_BATCH", 20)
    own = ledger(store)
    books = Books(lambda: own, Pace(0.01, 60.0, 1.0), LimitMetrics(CollectorRegistry(), by_key=False))
    written: list[int] = []
    write = own.write

    async def busy(batch: Batch, now: float) -> None:
        written.append(len(batch.rows))
        books.record(row(1, f"late-{len(written)}"))
        await write(batch, now)

    for number in range(50):
        books.record(row(1, str(number)))
    with monkeypatch.context() as patch:
        patch.setattr(own, "write", busy)
        await books.flush()
    assert written == [20, 20, 12]
    assert books.pending
    await books.close()
    async with store.read() as session:
        assert await session.scalar(select(func.count()).select_from(UsageRecord)) == 53
