"""The tables. Every record of Pagoda derives from ``Record``; a change here needs a migration beside it.

Columns are portable between SQLite and PostgreSQL; queries live with the part of Pagoda that asks them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Index, Integer, MetaData, String, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class UtcTime(TypeDecorator[datetime]):
    """An instant: refuses a time without zone, stores UTC, gives UTC back on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Into the database."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time needs its zone: use datetime.now(UTC)")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Out of the database; SQLite forgets the zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


JsonValue = JSON().with_variant(JSONB(), "postgresql")
"""Any JSON value; on PostgreSQL in its binary form, which can be indexed."""


class Record(DeclarativeBase):
    """Base of all tables. Constraints are named by rule, so that a migration can drop them on either database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: UtcTime,
        dict[str, Any]: JsonValue,
        int: BigInteger().with_variant(Integer(), "sqlite"),  # SQLite counts up by itself only in an INTEGER
    }


class RunRecord(Record):
    """A run, to be found by its fields. For a run with a directory that directory is the truth and this an index."""

    __tablename__ = "runs"
    __table_args__ = (Index(None, "kind", "created"), Index(None, "status", "created"), Index(None, "created"))

    id: Mapped[str] = mapped_column(String(96), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    name: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(16))
    has_directory: Mapped[bool]
    """False for runs that consist of rows (agents); these are never touched when the index is rebuilt."""
    created: Mapped[datetime]
    started: Mapped[datetime | None]
    finished: Mapped[datetime | None]
    seed: Mapped[int]
    parent: Mapped[str | None] = mapped_column(String(96), index=True)
    """No foreign key: a parent's directory may have been deleted."""
    config: Mapped[dict[str, Any]]
    error: Mapped[str | None] = mapped_column(Text)
    attempt: Mapped[int]
    stage: Mapped[str | None] = mapped_column(String(200))
    done: Mapped[int | None]
    total: Mapped[int | None]
    pid: Mapped[int | None]
    host: Mapped[str | None] = mapped_column(String(300))
    heartbeat: Mapped[datetime | None]
