"""Prompts and answers as the database holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, select
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession

from pagoda.core.errors import InvalidRequest
from pagoda.core.storage.records import ContentRecord
from pagoda.core.storage.store import Store

_SHOWN = ("at", "request_id", "key_id", "team", "user", "model", "route", "status", "prompt", "answer")


@dataclass(frozen=True, slots=True)
class Whose:
    """Which rows: all that fit everything that is named."""

    key: str | None = None
    user: str | None = None
    request_id: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The same in SQL."""
        pairs = (
            (ContentRecord.key_id, self.key),
            (ContentRecord.user, self.user),
            (ContentRecord.request_id, self.request_id),
        )
        return [column == value for column, value in pairs if value is not None]


async def add(store: Store, rows: Sequence[dict[str, Any]]) -> None:
    """Keep rows."""

    async def change(session: AsyncSession) -> None:
        await session.execute(insert(ContentRecord), list(rows))

    await store.write(change)


async def find(store: Store, whose: Whose, limit: int) -> list[dict[str, Any]]:
    """Rows, the newest first, as JSON."""
    wanted = select(ContentRecord).where(*whose.conditions()).order_by(ContentRecord.id.desc()).limit(limit)
    async with store.read() as session:
        found = (await session.scalars(wanted)).all()
    return [{name: getattr(row, name) for name in _SHOWN} | {"at": row.at.isoformat()} for row in found]


async def forget(store: Store, whose: Whose) -> int:
    """Delete rows; how many went. Raises ``InvalidRequest`` where nobody is named."""
    if not whose.conditions():
        raise InvalidRequest("Name the key or the user whose prompts and answers are to be deleted.", param="key")
    return await _delete(store, whose.conditions())


async def prune(store: Store, days: float) -> int:
    """Delete what is older; how many rows went."""
    return await _delete(store, [ContentRecord.at < datetime.now(UTC) - timedelta(days=days)])


async def _delete(store: Store, conditions: Sequence[ColumnElement[bool]]) -> int:
    async def change(session: AsyncSession) -> int:
        done = await session.execute(delete(ContentRecord).where(*conditions))
        return int(done.rowcount) if isinstance(done, CursorResult) else 0

    return await store.write(change)
