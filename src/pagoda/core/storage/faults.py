"""A database's complaints in Pagoda's words: one sentence that says what is wrong and what to do.

The text of a statement, its parameters and the password of the URL never reach a message.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from alembic.util.exc import CommandError
from sqlalchemy.exc import DBAPIError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pagoda.core.errors import Conflict, PagodaError, StoreError
from pagoda.core.storage.address import Address

_RETRYABLE_STATES = ("40001", "40P01", "55P03", "57014")
_TAKEN_STATES = ("23505", "23503")
_GONE_STATES = ("08", "57P")


@contextmanager
def translated(address: Address, *, opening: bool = False) -> Iterator[None]:
    """Turn what SQLAlchemy, Alembic and the drivers raise inside into ``StoreError`` or ``Conflict``.

    A system error counts as the database's only while ``opening``: later it may well come from the caller's own code,
    except a broken connection, which asyncpg hands through as it is.
    """
    try:
        yield
    except (SQLAlchemyError, CommandError, sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise _fault(error, address) from error
    except OSError as error:
        if opening or (address.path is None and isinstance(error, ConnectionError | TimeoutError)):
            raise _system_fault(error, address) from error
        raise


def _fault(error: Exception, address: Address) -> PagodaError:
    if isinstance(error, PoolTimeout):
        return _busy(address)
    vendor = _vendor_of(error)
    if isinstance(vendor, sqlite3.Error):
        return _sqlite_fault(vendor, address)
    state = getattr(vendor, "sqlstate", None)
    if state is not None:
        return _postgresql_fault(str(state), vendor, address)
    if isinstance(vendor, TimeoutError | OSError) and not isinstance(vendor, sqlite3.Error):
        return _system_fault(vendor, address)
    gone = isinstance(error, DBAPIError) and error.connection_invalidated
    if gone or isinstance(vendor, asyncpg.InterfaceError):
        return _gone(address)
    if isinstance(error, InvalidRequestError):
        return StoreError(f"The database {address} was asked wrongly ({_first_line(error)}); please report this.")
    return StoreError(f"The database {address} failed: {_first_line(vendor)}. Look at its own log for the reason.")


def _vendor_of(error: BaseException) -> BaseException:
    """The driver's own exception: SQLAlchemy and its adapters wrap it once or twice."""
    seen = error
    while True:
        inner = getattr(seen, "orig", None) if isinstance(seen, DBAPIError) else None
        if inner is None and not isinstance(seen, sqlite3.Error | asyncpg.PostgresError | asyncpg.InterfaceError):
            inner = seen.__cause__
        if inner is None:
            return seen
        seen = inner


def _sqlite_fault(error: sqlite3.Error, address: Address) -> PagodaError:
    name = str(getattr(error, "sqlite_errorname", ""))
    text = str(error)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return _busy(address)
    if name.startswith("SQLITE_FULL") or "disk is full" in text:
        return _full(address)
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return StoreError(
            f"{address} is damaged or is not a Pagoda database ({text}): restore it from a backup, or move it away "
            "to start with an empty one.",
            code="store_corrupt",
        )
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return _not_writable(address, text)
    if name in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_FOREIGNKEY"):
        return _taken(text)
    if name.startswith("SQLITE_IOERR"):
        return StoreError(f"Reading or writing {address} failed ({text}): check the disk.", code="store_disk")
    return StoreError(f"The database {address} refused a statement: {text}.")


def _postgresql_fault(state: str, error: BaseException, address: Address) -> PagodaError:
    text = _first_line(error)
    if state in _RETRYABLE_STATES:
        return _busy(address)
    if state in _TAKEN_STATES:
        return _taken(text)
    if state.startswith(_GONE_STATES):
        return _gone(address)
    if state == "53100":
        return _full(address)
    if state.startswith("53"):
        return StoreError(
            f"The database {address} has no resources left ({text}): raise its limits or use fewer workers.",
            code="store_busy",
            retryable=True,
        )
    if state.startswith("28") or state == "3D000":
        return StoreError(
            f"The database {address} let nobody in ({text}): check user, password and database in storage.url.",
            code="store_access",
        )
    if state in ("42501", "25006"):
        return _not_writable(address, text)
    return StoreError(f"The database {address} refused a statement: {text}.")


def _system_fault(error: OSError, address: Address) -> StoreError:
    if address.path is not None:
        if error.errno == 28:  # ENOSPC, which has one name on every system but is an OSError without a class
            return _full(address)
        return _not_writable(address, error.strerror or str(error) or type(error).__name__)
    return _gone(address)


def _busy(address: Address) -> StoreError:
    return StoreError(
        f"The database {address} is busy: somebody else has kept it locked for longer than Pagoda waits; try again.",
        code="store_busy",
        retryable=True,
    )


def _full(address: Address) -> StoreError:
    return StoreError(
        f"The disk of the database {address} is full; nothing was written. Free some space and try again.",
        code="store_full",
        retryable=True,
    )


def _gone(address: Address) -> StoreError:
    return StoreError(
        f"The database {address} cannot be reached: check that it runs and that storage.url is right, then try again.",
        code="store_gone",
        retryable=True,
    )


def _not_writable(address: Address, reason: str) -> StoreError:
    return StoreError(
        f"{address} cannot be opened for writing ({reason}): give this user the right to write there, or set "
        "PAGODA_HOME to another directory.",
        code="store_access",
    )


def _taken(reason: str) -> Conflict:
    return Conflict(f"The record contradicts one that exists ({reason}): choose another name or change that one.")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
