"""Prompts wired together: the book over the records of this process, and the index that follows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pagoda.application.records import Records
from pagoda.core.settings import Settings
from pagoda.core.types import Call
from pagoda.logic.prompts.file import read_prompt_file
from pagoda.logic.prompts.index import PromptIndex
from pagoda.logic.prompts.prompt import PromptVersion
from pagoda.logic.prompts.resolving import reference_from

if TYPE_CHECKING:
    from pagoda.logic.prompts.book import PromptBook


class PromptRoom:
    """Book and index of prompts."""

    def __init__(self, records: Records, settings: Settings) -> None:
        self._records = records
        self.index = PromptIndex(self._book_if_any, settings.prompts.refresh_seconds)

    @cached_property
    def book(self) -> PromptBook:
        """Prompts as they are kept."""
        from pagoda.logic.prompts.book import PromptBook  # noqa: PLC0415  (it brings the database)

        return PromptBook(self._records.open)

    def _book_if_any(self) -> PromptBook | None:
        return self.book if self._records.exist else None

    async def find(self, text: str, tenant: str) -> PromptVersion:
        """The prompt that a person names: a file, or ``name``, ``name@3``, ``name@staging``."""
        path = Path(text)
        if path.suffix in (".yaml", ".yml"):
            return await asyncio.to_thread(read_prompt_file, path)
        return await self.index.resolve(reference_from(text), Call(tenant=tenant))


@asynccontextmanager
async def open_prompts(settings: Settings) -> AsyncIterator[PromptRoom]:
    """The prompts of this home for a command or a run: read once, and followed where ``index.start()`` is called."""
    records = Records(settings)
    room = PromptRoom(records, settings)
    await room.index.refresh()
    try:
        yield room
    finally:
        await room.index.close()
        await records.close()
