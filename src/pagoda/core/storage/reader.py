"""Questions to a SQLite file by plain functions, on a thread of their own.

For what is asked again and again: a session takes some six ways to a thread, and ten times the processor time. Not
here: questions that use the mapper, and PostgreSQL (``store``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from pagoda.core.storage.address import Address
from pagoda.core.storage.faults import translated
from pagoda.core.storage.lane import Lane

T = TypeVar("T")


class Reader:
    """Asks one question after the other."""

    def __init__(self, address: Address, patience: float) -> None:
        self._address = address
        self._lane = Lane("store-reader", address, patience)

    async def ask(self, question: Callable[[Connection], T]) -> T:
        """What a question finds at one moment of the database."""
        return await self._lane.run(partial(self._ask, question))

    async def close(self) -> None:
        """Finish what has begun and disconnect."""
        await self._lane.close()

    def _ask(self, question: Callable[[Connection], T]) -> T:
        try:
            with translated(self._address, opening=True):
                connection = self._lane.connection()
            with translated(self._address), connection.begin():
                return question(connection)
        except Exception:
            self._lane.disconnect()  # the next one begins anew
            raise
