"""The connection pool of one database, set up so that both databases behave alike.

A read is one consistent snapshot that cannot write; a write takes its lock at its start, waits a stated time for it,
and is on the disk when it returns.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy import create_engine as create_sync_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from pagoda.core.storage.address import Address

WRITES = "pagoda_writes"
"""Execution option of a connection that may write."""

_CONNECTIONS = 8
_STATEMENT_FACTOR = 3  # a statement may compute as well as wait for a lock


def create_engine(address: Address, patience: float) -> AsyncEngine:
    """The engine for everyday use; ``patience`` is the longest wait for a lock or a free connection, seconds."""
    if address.path is None:
        return create_async_engine(
            address.url,
            connect_args=_postgresql_arguments(patience, statement_seconds=patience * _STATEMENT_FACTOR),
            pool_size=_CONNECTIONS,
            max_overflow=0,
            pool_timeout=patience,
            pool_pre_ping=True,  # a database that was restarted costs one ping, not one failed request
            hide_parameters=True,
        )
    engine = create_async_engine(
        address.url,
        connect_args={"timeout": patience},
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=patience,
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def create_plain_engine(address: Address, patience: float) -> Engine:
    """An engine for one thread that changes a SQLite file by itself; each of its connections is a new one."""
    engine = create_sync_engine(
        address.url.set(drivername="sqlite"),
        connect_args={"timeout": patience},
        poolclass=NullPool,
        hide_parameters=True,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def create_migration_engine(address: Address, patience: float) -> AsyncEngine:
    """An engine for one migration: no pool, no limit on a statement, foreign keys unchecked until the end."""
    if address.path is None:
        arguments = _postgresql_arguments(patience, statement_seconds=0)
        return create_async_engine(address.url, connect_args=arguments, poolclass=NullPool, hide_parameters=True)
    engine = create_async_engine(
        address.url,
        connect_args={"timeout": patience},
        poolclass=NullPool,
        hide_parameters=True,
        execution_options={WRITES: True},
    )
    event.listen(engine.sync_engine, "connect", _prepare_migration)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _postgresql_arguments(patience: float, statement_seconds: float) -> dict[str, Any]:
    return {
        "timeout": patience,
        "server_settings": {
            "application_name": "pagoda",
            "lock_timeout": f"{round(patience * 1000)}ms",
            "statement_timeout": f"{round(statement_seconds * 1000)}ms",
        },
    }


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # A revoked key must stay revoked after a power cut, so each commit is on the disk.
    _set(connection, "foreign_keys=ON", "synchronous=FULL")


def _prepare_migration(connection: Any, _record: object) -> None:
    _set(connection, "journal_mode=WAL")


def _set(connection: Any, *pragmas: str) -> None:
    # The sqlite3 module would begin transactions by its own rules, always deferred; _begin_sqlite does it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = bool(connection.get_execution_options().get(WRITES))
    if connection.info.get(WRITES) is not writes:  # each statement is a way to SQLite's thread and back
        connection.exec_driver_sql(f"PRAGMA query_only={'OFF' if writes else 'ON'}")
        connection.info[WRITES] = writes
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
