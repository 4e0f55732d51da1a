"""A thread of its own with a connection of its own to a SQLite file: what it does there is one way to it and back.

Not here: what is read or written (``reader``, ``writer``), and PostgreSQL (``store``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection

from pagoda.core.storage.address import Address
from pagoda.core.storage.engine import create_plain_engine

T = TypeVar("T")


class Lane:
    """The thread and its connection, which the first that needs it opens there. ``options`` are the connection's."""

    def __init__(self, name: str, address: Address, patience: float, **options: object) -> None:
        self._engine = create_plain_engine(address, patience)
        self._options = options
        self._connection: Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, work: Callable[[], T]) -> T:
        """What a plain function gives on the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Finish what has begun and disconnect."""
        await self.run(self.disconnect)
        self._thread.shutdown(wait=False)

    def connection(self) -> Connection:
        """The connection; on the thread only."""
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(**self._options)
        return self._connection

    def disconnect(self) -> None:
        """Let go of the connection, so that the next one is a new one; on the thread only."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
