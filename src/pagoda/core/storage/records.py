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


class FileRecord(Record):
    """A file that was uploaded or made by a batch; its content is ``files/<id>`` in ``PAGODA_HOME``."""

    __tablename__ = "files"
    __table_args__ = (Index(None, "created"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    filename: Mapped[str] = mapped_column(String(500))
    purpose: Mapped[str] = mapped_column(String(32))
    bytes: Mapped[int]
    created: Mapped[datetime]
    tenant: Mapped[str] = mapped_column(String(64), server_default="local")
    """The team whose file it is; for others it does not exist."""


class BatchRecord(Record):
    """A batch that was asked for over HTTP; how it stands is in the directory of its run."""

    __tablename__ = "batches"
    __table_args__ = (Index(None, "created"), Index(None, "input_file_id"))

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    run_id: Mapped[str] = mapped_column(String(96))
    endpoint: Mapped[str] = mapped_column(String(64))
    input_file_id: Mapped[str] = mapped_column(String(64))
    output_file_id: Mapped[str] = mapped_column(String(64))
    error_file_id: Mapped[str] = mapped_column(String(64))
    """Both are settled from the beginning and become files when there is something in them and the batch has ended."""
    created: Mapped[datetime]
    expires: Mapped[datetime]
    cancelling: Mapped[datetime | None]
    ended: Mapped[bool]
    """Its files have been entered; nothing changes any more."""
    labels: Mapped[dict[str, Any]]
    tenant: Mapped[str] = mapped_column(String(64), server_default="local")


class KeyRecord(Record):
    """A key. Its secret is not here: only a hash of it."""

    __tablename__ = "keys"
    __table_args__ = (Index(None, "secret_hash", unique=True), Index(None, "previous_hash"), Index(None, "name"))

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    team: Mapped[str] = mapped_column(String(64))
    shown: Mapped[str] = mapped_column(String(16))
    """The first characters of the secret, by which its owner knows it in a list."""
    secret_hash: Mapped[str] = mapped_column(String(64))
    previous_hash: Mapped[str | None] = mapped_column(String(64))
    previous_until: Mapped[datetime | None]
    """A secret that was rotated away goes on working until then."""
    scopes: Mapped[str] = mapped_column(String(100))
    """Words with spaces between them."""
    models: Mapped[dict[str, Any] | None]
    """``{"ids": [...]}``; null: all."""
    priority: Mapped[int]
    limits: Mapped[dict[str, Any]]
    created: Mapped[datetime]
    expires: Mapped[datetime | None]
    revoked: Mapped[datetime | None]
    last_used: Mapped[datetime | None]
    """To the minute or so; never later than the truth."""


class TeamRecord(Record):
    """The limits that all keys of a team share; a team without any has no row."""

    __tablename__ = "teams"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    limits: Mapped[dict[str, Any]]


class AuditRecord(Record):
    """Something that was done, or refused, with keys or with the service. Never holds a secret."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "at"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    who: Mapped[str] = mapped_column(String(64))
    """The id of a key, or ``local``: this machine's own user."""
    address: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(100))
    subject: Mapped[str] = mapped_column(String(300))
    outcome: Mapped[str] = mapped_column(String(32))


class UsageRecord(Record):
    """What one call used, or several of the same kind that were written together while the database was away."""

    __tablename__ = "usage"
    __table_args__ = (Index(None, "day", "key_id"), Index(None, "request_id"), Index(None, "holder"))

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    day: Mapped[str] = mapped_column(String(10))
    """In UTC, as ``2026-11-22``."""
    key_id: Mapped[str] = mapped_column(String(64))
    """``local`` for this machine's own user and Pagoda itself."""
    team: Mapped[str] = mapped_column(String(200))
    model: Mapped[str] = mapped_column(String(500))
    endpoint: Mapped[str] = mapped_column(String(200))
    requests: Mapped[int]
    prompt_tokens: Mapped[int]
    cached_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    money: Mapped[int]
    """In billionths of the currency that the price table is written in."""
    status: Mapped[str] = mapped_column(String(64))
    estimated: Mapped[bool]
    """Not counted by an engine: the worst case, or what was seen before the call broke off."""
    request_id: Mapped[str] = mapped_column(String(128))
    holder: Mapped[str | None] = mapped_column(String(200))
    """The dead service whose slice of a budget this row charges."""
    account: Mapped[str | None] = mapped_column(String(256))
    period: Mapped[str | None] = mapped_column(String(10))


class UsageDayRecord(Record):
    """The sums of ``usage`` by day, key and model, kept with every row, so that reports need not read them all."""

    __tablename__ = "usage_days"
    __table_args__ = (Index(None, "key_id", "day"), Index(None, "team", "day"))

    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    team: Mapped[str] = mapped_column(String(200), primary_key=True)
    model: Mapped[str] = mapped_column(String(500), primary_key=True)
    requests: Mapped[int]
    prompt_tokens: Mapped[int]
    cached_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    money: Mapped[int]
    estimated_tokens: Mapped[int]
    estimated_money: Mapped[int]


class BudgetRecord(Record):
    """An account's budget in a period: what is spent, and what services hold of it."""

    __tablename__ = "budgets"

    account: Mapped[str] = mapped_column(String(256), primary_key=True)
    period: Mapped[str] = mapped_column(String(10), primary_key=True)
    spent_tokens: Mapped[int]
    spent_money: Mapped[int]
    leased_tokens: Mapped[int]
    leased_money: Mapped[int]


class HolderRecord(Record):
    """A service process that may hold slices of budgets."""

    __tablename__ = "budget_holders"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    place: Mapped[str] = mapped_column(String(500))
    """Machine and home: one process at a time lives there."""
    seen: Mapped[datetime]
    batch: Mapped[int]
    """Number of its last batch of usage, so that none is written twice."""


class LeaseRecord(Record):
    """What one holder has of one budget."""

    __tablename__ = "budget_leases"

    holder: Mapped[str] = mapped_column(String(200), primary_key=True)
    account: Mapped[str] = mapped_column(String(256), primary_key=True)
    period: Mapped[str] = mapped_column(String(10), primary_key=True)
    team: Mapped[str] = mapped_column(String(200))
    tokens: Mapped[int]
    money: Mapped[int]


class ContentRecord(Record):
    """What was said in one call, secrets masked; kept only where settings ask for it, and for as long."""

    __tablename__ = "contents"
    __table_args__ = (Index(None, "at"), Index(None, "key_id", "at"), Index(None, "user", "at"))

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    request_id: Mapped[str] = mapped_column(String(128))
    key_id: Mapped[str] = mapped_column(String(64))
    team: Mapped[str] = mapped_column(String(200))
    user: Mapped[str | None] = mapped_column(String(500))
    """Whom the client says it asks for."""
    model: Mapped[str] = mapped_column(String(500))
    route: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(64))
    prompt: Mapped[str] = mapped_column(Text)
    """Messages as JSON, or plain text."""
    answer: Mapped[str] = mapped_column(Text)
