"""The one thread that asks a SQLite file by plain functions: a question is one way to it and back.

For what is asked again and again: a session takes some six ways, and ten times the processor time. Not here: questions
that use the mapper, and PostgreSQL (``store``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection

from pagoda.core.storage.address import Address
from pagoda.core.storage.engine import create_plain_engine
from pagoda.core.storage.faults import translated

T = TypeVar("T")


class Reader:
    """The thread and its connection, opened by the first question."""

    def __init__(self, address: Address, patience: float) -> None:
        self._address = address
        self._engine = create_plain_engine(address, patience)
        self._connection: Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-reader")

    async def ask(self, question: Callable[[Connection], T]) -> T:
        """What a question finds at one moment of the database."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, question)

    async def close(self) -> None:
        """Finish what has begun and disconnect."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    def _ask(self, question: Callable[[Connection], T]) -> T:
        try:
            with translated(self._address, opening=self._connection is None):
                if self._connection is None:
                    self._connection = self._engine.connect()
                with self._connection.begin():
                    return question(self._connection)
        except BaseException:
            self._disconnect()  # the next one begins anew
            raise

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
