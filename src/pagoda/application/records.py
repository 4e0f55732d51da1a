"""The database of records of this process: opened when somebody first needs it, and made by nobody who only looks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pagoda.core.settings import Settings

if TYPE_CHECKING:
    from pagoda.core.storage.store import Store


class Records:
    """The store of records, opened once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: Store | None = None
        self._opening = asyncio.Lock()

    @property
    def exist(self) -> bool:
        """Whether this home has records."""
        return bool(self._settings.storage.url) or (self._settings.home / "pagoda.db").exists()

    async def open(self) -> Store:
        """The store. Raises ``StoreError``."""
        async with self._opening:
            if self._store is None:
                from pagoda.core.storage.store import open_store  # noqa: PLC0415  (not every service needs it)

                store = open_store(self._settings)
                await store.open()
                self._store = store
        return self._store

    async def close(self) -> None:
        """Close it, if it was opened."""
        if self._store is not None:
            await self._store.close()
