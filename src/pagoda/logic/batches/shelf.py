"""Uploaded files and those that batches make: a row in the records, the content beside them in ``files/``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from sqlalchemy import delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from pagoda.core.errors import Conflict, InvalidRequest, NotFound
from pagoda.core.runs.files import translated
from pagoda.core.runs.record import now
from pagoda.core.storage.records import BatchRecord, FileRecord
from pagoda.core.storage.store import Store
from pagoda.core.types import new_id


class FileShelf:
    """The files of this home. ``store`` gives the records, opened."""

    def __init__(self, store: Callable[[], Awaitable[Store]], directory: Path) -> None:
        self._store = store
        self._directory = directory

    def path(self, file_id: str) -> Path:
        """Where the content of a file is, or will be."""
        return self._directory / file_id

    async def add(self, tenant: str, filename: str, purpose: str, content: AsyncIterator[bytes]) -> FileRecord:
        """Keep a file of a team's. Raises ``InvalidRequest`` for an empty one."""
        file_id = new_id("file")
        draft = self.path(f".{file_id}")
        try:
            size = await self._write(draft, content)
            if not size:
                raise InvalidRequest("The file is empty.", param="file")
            with translated(draft):
                draft.replace(self.path(file_id))
        finally:
            draft.unlink(missing_ok=True)
        record = FileRecord(
            id=file_id, filename=filename[:500], purpose=purpose, bytes=size, created=now(), tenant=tenant
        )
        await self.enter(record)
        return record

    async def enter(self, *records: FileRecord) -> None:
        """Note files whose content is in its place; those that are known already are left as they are."""

        async def change(session: AsyncSession) -> None:
            for record in records:
                if await session.get(FileRecord, record.id) is None:
                    session.add(record)

        await (await self._store()).write(change)

    async def get(self, tenant: str, file_id: str) -> FileRecord:
        """What is known of a file. Raises ``NotFound``, for another team's too."""
        async with (await self._store()).read() as session:
            record = await session.get(FileRecord, file_id)
        if record is None or record.tenant != tenant:
            raise NotFound(f"There is no file {file_id[:100]!r}.", param="file_id")
        return record

    async def find(
        self, tenant: str, *, purpose: str | None, after: str | None, limit: int, newest_first: bool
    ) -> list[FileRecord]:
        """A team's files in the order of their creation, from the one after ``after`` on."""
        columns = (FileRecord.created, FileRecord.id)
        query = select(FileRecord).where(FileRecord.tenant == tenant).limit(limit)
        query = query.order_by(*(column.desc() if newest_first else column.asc() for column in columns))
        if purpose is not None:
            query = query.where(FileRecord.purpose == purpose)
        if after is not None:
            last = await self.get(tenant, after)
            place = tuple_(last.created, last.id)
            query = query.where(tuple_(*columns) < place if newest_first else tuple_(*columns) > place)
        async with (await self._store()).read() as session:
            return list(await session.scalars(query))

    async def remove(self, tenant: str, file_id: str) -> None:
        """Forget a file and its content. Raises ``Conflict`` while a batch reads it."""
        await self.get(tenant, file_id)

        async def change(session: AsyncSession) -> None:
            using = select(BatchRecord.id).where(BatchRecord.input_file_id == file_id, BatchRecord.ended.is_(False))
            if (batch := await session.scalar(using)) is not None:
                raise Conflict(f"The file is the input of {batch}, which has not ended; cancel that first.")
            await session.execute(delete(FileRecord).where(FileRecord.id == file_id))

        await (await self._store()).write(change)
        with translated(self.path(file_id)):
            self.path(file_id).unlink(missing_ok=True)

    async def _write(self, path: Path, content: AsyncIterator[bytes]) -> int:
        size = 0
        with translated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                async for block in content:
                    await asyncio.to_thread(file.write, block)
                    size += len(block)
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
        return size
