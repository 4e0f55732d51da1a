"""An INSERT that can say what to do about a row that exists, in the words of either database."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session


def insertion(session: AsyncSession | Session, table: Any) -> Any:
    """An INSERT into ``table`` with ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
    return insertion_for(dialect_of(session), table)


def insertion_for(dialect: str, table: Any) -> Any:
    """The same by the name of the database's dialect, for a statement that is built once."""
    module: Any = postgresql if dialect == "postgresql" else sqlite
    return module.insert(table)


def dialect_of(session: AsyncSession | Session) -> str:
    """Name of the dialect of a session's database."""
    return session.get_bind().dialect.name
