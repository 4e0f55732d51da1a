"""Changes of a SQLite file by plain functions, on a thread of their own: a transaction is one way to it and back.

Changes that wait while it writes go into one transaction together, so that they share its way to the disk. Not here:
whose turn it is among all writes of the process, and PostgreSQL (``store``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from sqlalchemy import Connection

from pagoda.core.errors import StoreError
from pagoda.core.storage.address import Address
from pagoda.core.storage.engine import WRITES
from pagoda.core.storage.faults import translated
from pagoda.core.storage.lane import Lane

PlainChange: TypeAlias = Callable[[Connection], Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a change: its result, or what it raised."""

    result: Any = None
    error: Exception | None = None


class Writer:
    """Carries out one transaction after the other."""

    def __init__(self, address: Address, patience: float) -> None:
        self._address = address
        self._lane = Lane("store-writer", address, patience, **{WRITES: True})

    async def perform(self, changes: Sequence[PlainChange]) -> list[Outcome]:
        """Commit changes together; where that fails, each by itself, so that none falls by another's fault."""
        return await self._lane.run(partial(self._perform, changes))

    async def close(self) -> None:
        """Finish what has begun and disconnect."""
        await self._lane.close()

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
            connection = self._lane.connection()
            transaction = connection.begin()
        try:
            with translated(self._address):
                results = [change(connection) for change in changes]
                transaction.commit()
                return results
        except BaseException:
            connection.rollback()  # unless a session has done so
            raise
