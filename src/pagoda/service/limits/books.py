"""The books of this process: purses that are filled from the ledger, and the one task that writes usage to it.

Nothing in a request waits for the writer. A request waits for the ledger only when its purse does not hold its worst
case; a purse is filled for many calls at once, and again before it is empty.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pagoda.core.errors import StoreError
from pagoda.core.recurring import recur
from pagoda.service.limits.account import NOTHING, Account, Amount, period_of
from pagoda.service.limits.entries import Batch, Change, HolderGone, Row, Taken, Wish
from pagoda.service.limits.metrics import LimitMetrics
from pagoda.service.limits.purse import Purse

if TYPE_CHECKING:  # it brings the database, which is opened behind the first request
    from pagoda.service.limits.ledger import Ledger

logger = logging.getLogger(__name__)

CALLS_A_SLICE = 64
MOST_ROWS = 50_000
"""More than these are summed up while the database is away."""
_ROWS_A_BATCH = 2_000
_DRY_SECONDS = 1.0
"""How long an empty budget is believed to be empty without asking again."""
_CLOSING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often what happens, seconds."""

    write: float
    lease: float
    idle: float
    """After which an unused slice goes back."""


class Books:
    """Purses and rows of this process. ``start`` before use, ``close`` at the end."""

    def __init__(
        self,
        open_ledger: Callable[[], Ledger],
        pace: Pace,
        metrics: LimitMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._open_ledger = open_ledger
        self._ledger: Ledger | None = None
        self._pace = pace
        self._metrics = metrics
        self._clock = clock
        self._purses: dict[tuple[str, str, bool, bool], Purse] = {}
        self._dry: dict[Purse, tuple[float, Taken]] = {}
        self._filling: dict[Purse, asyncio.Task[Taken]] = {}
        self._loans: dict[Purse, Amount] = {}
        self._rows: deque[Row] = deque()
        self._batch: tuple[Batch, dict[Purse, Amount]] | None = None
        self._number = 0
        self._registering = asyncio.Lock()
        self._flushing = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._beaten = 0.0
        metrics.unwritten.set_function(lambda: len(self._rows))

    @property
    def pending(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self._rows or self._batch)

    def start(self) -> None:
        """Begin to write what is recorded."""
        self._metrics.working.labels("database").set(1)
        self._writer = asyncio.create_task(recur(self._write_next, 0.0), name="usage-writer")

    async def close(self) -> None:
        """Write what is left and give the slices back, as far as the database lets us within a few seconds."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        await asyncio.gather(*self._filling.values(), return_exceptions=True)
        if not self.pending and self._ledger is None:
            return
        try:
            async with asyncio.timeout(_CLOSING_SECONDS):
                await self.flush(patience=-1)
                while self.pending:  # calls that ended meanwhile
                    await self.flush(patience=-1)
                await (await self.ledger()).leave()
        except (StoreError, TimeoutError) as error:
            logger.error("usage of %d calls was not written: %s", len(self._rows), error)

    async def living(self) -> list[str]:
        """The services that share these books and live, this one among them. Raises ``StoreError``."""
        return await (await self.ledger()).living(self._clock(), self._pace.lease)

    def record(self, row: Row) -> None:
        """Note what a call used; written soon."""
        self._rows.append(row)
        if len(self._rows) == 1:
            self._wake.set()

    def purse(self, account: Account) -> Purse:
        """The account's purse of the present period."""
        limits = account.limits
        period = period_of(limits.period, self._clock()) if limits.period != "total" else "total"
        place = (account.id, period, limits.budget_tokens is not None, limits.budget_money is not None)
        purse = self._purses.get(place)
        if purse is None:
            purse = self._purses[place] = Purse(account, period)
        elif purse.account is not account and purse.account != account:
            purse.account = account
            self._dry.pop(purse, None)
        return purse

    async def fill(self, purse: Purse, least: Amount, wanted: Amount) -> Taken | None:
        """Take from the ledger what the purse lacks; ``None``: nothing was lacking. Raises ``StoreError``."""
        if not purse.lacks(wanted):
            return None
        filling = self._filling.get(purse)
        if filling is not None:
            await asyncio.gather(filling, return_exceptions=True)
            if not purse.lacks(wanted):
                return None
        dry = self._dry.get(purse)
        if dry is not None and dry[0] > time.monotonic() and not left_over(purse, dry[1], purse.lacks(least)):
            return dry[1]
        self._wake.set()
        return await self._begin_filling(purse, least, wanted)

    def lend(self, purse: Purse, amount: Amount) -> None:
        """Spend without asking while the ledger is away; it is told as soon as it is back, whatever the budget says."""
        purse.take(amount)
        self._loans[purse] = self._loans.get(purse, NOTHING) + amount

    def fill_ahead(self, purse: Purse, wanted: Amount) -> None:
        """Have the purse filled in the background when it lacks the next calls' worst case."""
        if purse.holds(2 * wanted.tokens, 2 * wanted.money) or purse in self._filling or purse in self._dry:
            return
        self._begin_filling(purse, wanted, wanted).add_done_callback(_seen)

    def _begin_filling(self, purse: Purse, least: Amount, wanted: Amount) -> asyncio.Task[Taken]:
        task = self._filling.get(purse)
        if task is None:
            task = self._filling[purse] = asyncio.create_task(self._fill(purse, least, wanted))
            task.add_done_callback(lambda _: self._filling.pop(purse, None))
        return task

    async def _fill(self, purse: Purse, least: Amount, wanted: Amount) -> Taken:
        try:
            ledger = await self.ledger()
            wish = Wish(purse.lacks(least), purse.lacks(wanted), purse.lacks(_times(wanted, CALLS_A_SLICE)))
            try:
                taken = await ledger.take(purse.account, purse.period, wish)
            except HolderGone:
                await self._revive()
                taken = await ledger.take(purse.account, purse.period, wish)
        except StoreError as error:
            self._failed(error)
            raise
        self._well()
        purse.take(taken.granted)
        if purse.lacks(wanted):
            self._dry[purse] = (time.monotonic() + _DRY_SECONDS, taken)
        else:
            self._dry.pop(purse, None)
        self._tell(purse, taken)
        return taken

    async def flush(self, patience: int | None = None) -> None:
        """Write everything there is now: what is recorded meanwhile waits for the next time, since a transaction costs
        as much as some fifty rows. Raises ``StoreError``, with nothing lost."""
        ledger = await self.ledger()
        async with self._flushing:  # the writer's and a report's: a batch is taken off the purses once
            due = 1 + len(self._rows) // _ROWS_A_BATCH + (self._batch is not None)
            while due and await self._write_batch(ledger, patience):
                due -= self._batch is None

    async def _write_batch(self, ledger: Ledger, patience: int | None) -> bool:
        """Write the batch that failed before, or the next one; whether there was any."""
        if self._batch is None:
            self._batch = self._next_batch(patience)
        if self._batch is None:
            return False
        batch, spent = self._batch
        try:
            await ledger.write(batch, self._clock())
        except HolderGone:
            await self._revive()
            return True
        self._number = batch.number
        for purse, used in spent.items():
            purse.written(used)
            self._dry.pop(purse, None)  # what the ledger said of it is not so any more
        self._batch = None
        self._beaten = time.monotonic()
        return True

    def _next_batch(self, patience: int | None) -> tuple[Batch, dict[Purse, Amount]] | None:
        if patience is None:
            patience = int(self._pace.idle / self._pace.write)
        rows = tuple(self._rows.popleft() for _ in range(min(len(self._rows), _ROWS_A_BATCH)))
        changes, spent = [], {}
        for place, purse in list(self._purses.items()):
            used, spare = purse.unwritten, purse.spare(patience)
            if used or spare or purse in self._loans:
                returned = purse.bounded(used) + spare - self._loans.pop(purse, NOTHING)
                changes.append(Change(purse.account, purse.period, used, returned))
                spent[purse] = used
            elif purse.empty and purse.idle > patience and purse not in self._filling:
                del self._purses[place]
                self._dry.pop(purse, None)
        if not rows and not changes:
            return None
        return Batch(self._number + 1, rows, tuple(changes)), spent

    async def _revive(self) -> None:
        """The others took us for dead: say what we really hold."""
        logger.warning("this service was taken for dead and its share of the budgets charged; that is corrected now")
        if self._batch is not None:  # its changes were made for slices that are gone
            batch, spent = self._batch
            pairs = zip(batch.changes, spent.items(), strict=True)
            changes = tuple(replace(each, returned=purse.bounded(used)) for each, (purse, used) in pairs)
            self._batch = replace(batch, changes=changes), spent
        self._loans.clear()
        held = []
        for purse in self._purses.values():
            purse.void()
            if purse.leased:
                held.append((purse.account, purse.period, purse.leased))
        await (await self.ledger()).revive(held, self._number, self._clock())

    async def ledger(self) -> Ledger:
        """The ledger, in which this process is entered. Raises ``StoreError``."""
        if self._ledger is None:
            async with self._registering:
                if self._ledger is None:
                    ledger = await asyncio.to_thread(self._open_ledger)
                    await ledger.register(self._clock())
                    self._ledger = ledger
        return self._ledger

    async def _write_next(self) -> None:
        await self._wait()
        try:
            if self.pending or self._purses:
                await self.flush()
            if self._ledger is not None and time.monotonic() - self._beaten > self._pace.lease / 4:
                await self._keep_alive(self._ledger)
            self._well()
        except StoreError as error:
            self._failed(error)
            self._sum_up()

    async def _wait(self) -> None:
        """Until something is to be written, or a sign of life is due; then a moment, so that more comes together."""
        if not self.pending and not self._purses:
            self._wake.clear()
            try:
                async with asyncio.timeout(self._pace.lease / 4 if self._ledger is not None else None):
                    await self._wake.wait()
            except TimeoutError:
                return
        await asyncio.sleep(self._pace.write)

    async def _keep_alive(self, ledger: Ledger) -> None:
        try:
            await ledger.beat(self._clock())
        except HolderGone:
            await self._revive()
        self._beaten = time.monotonic()
        for dead in await ledger.bury(self._clock(), self._pace.lease):
            logger.warning("%s died; what it held of budgets is charged in full, as an estimate", dead)

    def _sum_up(self) -> None:
        """Keep memory bounded while the database is away: rows of the same kind become one, no token is lost."""
        if len(self._rows) < MOST_ROWS:
            return
        sums: dict[tuple[object, ...], Row] = {}
        for row in self._rows:
            kind = (int(row.at // 86_400), row.key_id, row.team, row.model, row.endpoint, row.status, row.estimated)
            sums[kind] = _joined(sums[kind], row) if kind in sums else row
        self._rows = deque(sums.values())

    def _failed(self, error: StoreError) -> None:
        self._metrics.failures.labels("database", error.code).inc()
        self._metrics.working.labels("database").set(0)
        logger.warning("usage waits to be written: %s", error.message)

    def _well(self) -> None:
        self._metrics.working.labels("database").set(1)

    def _tell(self, purse: Purse, taken: Taken) -> None:
        limits, gone = purse.account.limits, taken.spent + taken.leased - purse.free
        tokens = None if limits.budget_tokens is None else limits.budget_tokens - gone.tokens
        money = None if limits.budget_money is None else limits.budget_money - gone.money
        self._metrics.budget_left(purse.account.id, limits, tokens, money)


def left_over(purse: Purse, taken: Taken, least: Amount) -> bool:
    """Whether the ledger had that much left when it was asked last."""
    limits, gone = purse.account.limits, taken.spent + taken.leased
    return not (
        (limits.budget_tokens is not None and limits.budget_tokens - gone.tokens < least.tokens)
        or (limits.budget_money is not None and limits.budget_money - gone.money < least.money)
    )


def _times(amount: Amount, factor: int) -> Amount:
    return Amount(amount.tokens * factor, amount.money * factor)


def _seen(task: asyncio.Task[Taken]) -> None:
    if not task.cancelled():
        task.exception()  # it was counted where it happened; the next request meets it again


def _joined(one: Row, other: Row) -> Row:
    return replace(
        one,
        prompt=one.prompt + other.prompt,
        cached=one.cached + other.cached,
        completion=one.completion + other.completion,
        money=one.money + other.money,
        requests=one.requests + other.requests,
        request_id="",
    )
