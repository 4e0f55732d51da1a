"""The open database: reads that see one moment, writes that take turns.

Not here: what the tables are (``records``), and any question asked of them.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from pagoda.core.errors import StoreError
from pagoda.core.settings import Settings
from pagoda.core.storage.address import Address, address_of
from pagoda.core.storage.engine import WRITES, create_engine
from pagoda.core.storage.faults import translated
from pagoda.core.storage.migration import is_current, migrate
from pagoda.core.storage.place import refuse_network_place
from pagoda.core.storage.reader import Reader
from pagoda.core.storage.writer import PlainChange, Writer

T = TypeVar("T")

_MOST_TOGETHER = 64
"""Plain changes in one transaction: the others of the process want their turn."""


class Store:
    """A database, opened by ``async with`` and used from the event loop that opened it.

    What fails raises ``StoreError`` (``retryable`` when the same call may succeed later) or, for a record that
    contradicts another one, ``Conflict``.
    """

    def __init__(self, address: Address, *, patience: float = 10.0) -> None:
        self.address = address
        self._patience = patience
        self._engine: AsyncEngine | None = None
        # SQLite has one writer, and a queue in the process is fair where its own lock is not.
        self._turn = asyncio.Semaphore(1 if address.path is not None else 4)
        self._writes: set[asyncio.Task[Any]] = set()
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._plain: deque[tuple[PlainChange, asyncio.Future[Any]]] = deque()
        self._performing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Store:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect, and bring the tables up to this version of Pagoda."""
        path = self.address.path
        with translated(self.address, opening=True):
            if path is not None:
                await asyncio.to_thread(_prepare_place, path)
            engine = create_engine(self.address, self._patience)
            try:
                if not await is_current(engine, self.address):
                    await asyncio.to_thread(migrate, self.address, self._patience)
                    await engine.dispose()  # its connections have seen the database as it was before
            except BaseException:
                await engine.dispose()
                raise
        self._engine = engine
        if path is not None:
            self._writer, self._reader = Writer(self.address, self._patience), Reader(self.address, self._patience)

    async def close(self) -> None:
        """Finish the writes that have begun, then disconnect."""
        engine, self._engine = self._engine, None
        writer, self._writer = self._writer, None
        reader, self._reader = self._reader, None
        if self._writes:
            await asyncio.wait(self._writes)
        for plain in (writer, reader):
            if plain is not None:
                await plain.close()
        if engine is not None:
            await engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session that sees one moment of the database and cannot change it. Keep it short."""
        if self.address.path is None:
            options: dict[str, Any] = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        else:
            options = {WRITES: False}
        async with self._session(options) as session:
            yield session

    async def ask(self, question: Callable[[Connection], T]) -> T:
        """What ``read`` is, for a plain function of a connection: a tenth of its processor time on SQLite.

        There the function runs on the reader's thread, so it touches nothing but the database, and gives no rows that
        are still to be read.
        """
        self._opened()
        if self._reader is not None:
            return await self._reader.ask(question)
        async with self.read() as session:
            return await (await session.connection()).run_sync(question)

    async def write(self, change: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Call ``change`` with a session inside one transaction, commit, and give its result; all of it or nothing.

        Writes of one process take turns on SQLite, so ``change`` waits for nothing but the database. A caller that is
        cancelled before its turn has changed nothing; a transaction that has begun is finished without its caller.
        """
        await self._turn.acquire()
        task = asyncio.create_task(self._perform(change), name="store-write")
        self._writes.add(task)
        task.add_done_callback(self._end_turn)
        return await asyncio.shield(task)

    async def apply(self, change: Callable[[Connection], T]) -> T:
        """What ``write`` is, for a plain function of a connection: a third of its processor time on SQLite.

        There the function runs on the writer's thread, so it touches nothing but the database; changes that wait
        share a transaction, so it may run once more where another one's has failed. ``mapped`` makes one of a
        function of a session. A caller that is cancelled before its turn has changed nothing.
        """
        self._opened()
        if self._writer is None:

            async def within(session: AsyncSession) -> T:
                return await (await session.connection()).run_sync(change)

            return await self.write(within)
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._plain.append((change, done))
        if self._performing is None:
            self._performing = asyncio.create_task(self._perform_plain(self._writer), name="store-apply")
            self._writes.add(self._performing)
            self._performing.add_done_callback(self._writes.discard)
        return await done

    async def _perform_plain(self, writer: Writer) -> None:
        try:
            while self._plain:
                async with self._turn:
                    taken = [self._plain.popleft() for _ in range(min(len(self._plain), _MOST_TOGETHER))]
                    wanted = [each for each in taken if not each[1].cancelled()]
                    try:
                        outcomes = await writer.perform([change for change, _ in wanted])
                    except BaseException:  # the loop is about to end, or the thread is gone
                        for _, done in wanted:
                            done.cancel()
                        raise
                for (_, done), outcome in zip(wanted, outcomes, strict=True):
                    if done.cancelled():
                        continue
                    if outcome.error is None:
                        done.set_result(outcome.result)
                    else:
                        done.set_exception(outcome.error)
        finally:
            self._performing = None

    async def _perform(self, change: Callable[[AsyncSession], Awaitable[T]]) -> T:
        async with self._session({WRITES: True}) as session:
            result = await change(session)
            await session.commit()
            return result

    @asynccontextmanager
    async def _session(self, options: dict[str, Any]) -> AsyncIterator[AsyncSession]:
        """A session that is connected; it ends with a word to the database, which may be gone by then."""
        with translated(self.address):
            async with AsyncSession(self._opened(), expire_on_commit=False) as session:
                with translated(self.address, opening=True):
                    await session.connection(execution_options=options)
                yield session

    def _end_turn(self, task: asyncio.Task[Any]) -> None:
        self._writes.discard(task)
        self._turn.release()

    def _opened(self) -> AsyncEngine:
        if self._engine is None:
            raise StoreError(f"The database {self.address} is not open: use it inside `async with open_store(...)`.")
        return self._engine


def mapped(change: Callable[[Session], T]) -> Callable[[Connection], T]:
    """A plain change for ``Store.apply`` of one that uses the mapper."""

    def whole(connection: Connection) -> T:
        with Session(connection, expire_on_commit=False) as session:
            result = change(session)
            session.flush()
            return result

    return whole


def open_store(settings: Settings, *, patience: float = 10.0) -> Store:
    """The store that ``settings`` name, to be opened by ``async with``.

    ``patience`` is the longest wait for a lock or a free connection, seconds.
    """
    return Store(address_of(settings), patience=patience)


def _prepare_place(path: Path) -> None:
    refuse_network_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Records tell who asked what; SQLite gives its other files the mode of this one.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
