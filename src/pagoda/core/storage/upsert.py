"""An INSERT that can say what to do about a row that exists, in the words of either database."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession


def insertion(session: AsyncSession, table: Any) -> Any:
    """An INSERT into ``table`` with ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
    module: Any = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    return module.insert(table)
