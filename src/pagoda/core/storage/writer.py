"""The one thread that changes a SQLite file by plain functions: a transaction is one way to it and back.

Changes that wait while it writes go into one transaction together, so that they share its way to the disk. Not here:
whose turn it is among all writes of the process, and PostgreSQL (``store``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Connection, RootTransaction

from pagoda.core.errors import StoreError
from pagoda.core.storage.address import Address
from pagoda.core.storage.engine import WRITES, create_plain_engine
from pagoda.core.storage.faults import translated

PlainChange: TypeAlias = Callable[[Connection], Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a change: its result, or what it raised."""

    result: Any = None
    error: Exception | None = None


class Writer:
    """The thread and its connection, opened by the first change."""

    def __init__(self, address: Address, patience: float) -> None:
        self._address = address
        self._engine = create_plain_engine(address, patience)
        self._connection: Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-writer")

    async def perform(self, changes: Sequence[PlainChange]) -> list[Outcome]:
        """Commit changes together; where that fails, each by itself, so that none falls by another's fault."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._perform, changes)

    async def close(self) -> None:
        """Finish what has begun and disconnect."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    def _perform(self, changes: Sequence[PlainChange]) -> list[Outcome]:
        try:
            return [Outcome(result) for result in self._commit(changes)]
        except Exception as error:  # noqa: BLE001 - whoever asked for the change is told
            busy = isinstance(error, StoreError) and error.code == "store_busy"
            if busy or len(changes) == 1:  # a lock would be waited for by each in turn
                return [Outcome(error=error)] * len(changes)
            return [outcome for change in changes for outcome in self._perform([change])]

    def _commit(self, changes: Sequence[PlainChange]) -> list[Any]:
        with translated(self._address, opening=True):
            connection, transaction = self._begun()
        try:
            with translated(self._address):
                results = [change(connection) for change in changes]
                transaction.commit()
                return results
        except BaseException:
            connection.rollback()  # unless a session has done so
            raise

    def _begun(self) -> tuple[Connection, RootTransaction]:
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(**{WRITES: True})
        return self._connection, self._connection.begin()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
