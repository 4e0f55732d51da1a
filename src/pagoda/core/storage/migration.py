"""Bringing the tables up to this version of Pagoda: checked at every open, done once, by one process.

A migration is one transaction on both databases: it happens as a whole or not at all.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from filelock import FileLock, Timeout
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from pagoda.core.errors import StoreError
from pagoda.core.storage.address import Address
from pagoda.core.storage.engine import create_migration_engine
from pagoda.core.storage.faults import translated

DIRECTORY = Path(__file__).parent / "migrations"
VERSION_TABLE = "pagoda_version"
"""Not Alembic's usual name, so that a PostgreSQL database may hold another Alembic application too."""

_ADVISORY_LOCK = 0x7061676F6461  # "pagoda"
_PATIENCE_FACTOR = 6  # another process may be migrating a large table
_ALEMBIC = threading.Lock()
"""Alembic keeps the migration it works on in globals, so one process migrates one database at a time."""


def revisions() -> list[str]:
    """The versions this code knows, oldest first, from the names of the migration files."""
    return sorted(path.name[1:5] for path in (DIRECTORY / "versions").glob("v????_*.py"))


async def is_current(engine: AsyncEngine, address: Address) -> bool:
    """Whether nothing is left to do. Raises ``StoreError`` for a database that a newer Pagoda wrote."""
    async with engine.connect() as connection:
        return await connection.run_sync(_is_current, address)


def migrate(address: Address, patience: float) -> None:
    """Bring the database to the newest version. Blocks; call it in a thread."""
    patience *= _PATIENCE_FACTOR
    with _ALEMBIC, translated(address, opening=True):
        if address.path is None:
            asyncio.run(_migrate_postgresql(address, patience))
            return
        lock = FileLock(address.path.with_name(address.path.name + ".lock"))
        try:
            with lock.acquire(timeout=patience):
                asyncio.run(_migrate_sqlite(address, patience))
        except Timeout as error:
            raise StoreError(
                f"Another process has been bringing {address} up to date for {patience:g} s; try again.",
                code="store_busy",
                retryable=True,
            ) from error


def _is_current(connection: Connection, address: Address) -> bool:
    if connection.dialect.name == "sqlite":
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        if mode != "wal":
            return False
    return _version(connection, address) == revisions()[-1]


def _version(connection: Connection, address: Address) -> str | None:
    """The version of the tables; ``None`` when there are none."""
    tables = inspect(connection)
    if not tables.has_table(VERSION_TABLE):
        if connection.dialect.name == "sqlite" and tables.get_table_names():
            raise StoreError(
                f"{address} is the database of another program: set storage.url or PAGODA_HOME to another place.",
                code="store_place",
            )
        return None
    version = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant
    if version is not None and version not in revisions():
        raise StoreError(
            f"The database {address} was written by a newer Pagoda (its version is {version}, this one knows "
            f"{revisions()[-1]}): install that version or use another database.",
            code="store_newer",
        )
    return None if version is None else str(version)


async def _migrate_sqlite(address: Address, patience: float) -> None:
    engine = create_migration_engine(address, patience)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade, address)
            broken = (await connection.exec_driver_sql("PRAGMA foreign_key_check")).first()
            if broken is not None:
                raise StoreError(f"{address} has a record of {broken[0]} that refers to nothing: restore a backup.")
    finally:
        await engine.dispose()


async def _migrate_postgresql(address: Address, patience: float) -> None:
    engine = create_migration_engine(address, patience)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            await connection.run_sync(_upgrade, address)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, address: Address) -> None:
    _version(connection, address)  # another process may have been faster, and newer
    config = Config()
    config.set_main_option("script_location", str(DIRECTORY).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
