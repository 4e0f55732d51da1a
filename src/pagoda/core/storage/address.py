"""Where the database is: the setting ``storage.url`` turned into an address that SQLAlchemy opens.

Nothing is opened here, and no message shows a password.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from pagoda.core.errors import ConfigError
from pagoda.core.settings import Settings

_SQLITE = ("sqlite", "sqlite+aiosqlite")
_POSTGRESQL = ("postgres", "postgresql", "postgres+asyncpg", "postgresql+asyncpg")
_ALLOWED = "must be empty (SQLite in PAGODA_HOME), sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_PARAMETERS = ("host", "port", "sslmode", "ssl", "prepared_statement_cache_size")


@dataclass(frozen=True, slots=True)
class Address:
    """An address that can be opened; ``path`` is the file of SQLite, ``None`` for PostgreSQL."""

    url: URL
    path: Path | None

    def __str__(self) -> str:
        """What may be shown to people: the file, or the URL without its password and parameters."""
        if self.path is not None:
            return str(self.path)
        return self.url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)


def address_of(settings: Settings) -> Address:
    """The database that the settings name. Raises ``ConfigError`` for one that Pagoda cannot use."""
    text = settings.storage.url.reveal().strip()
    if not text:
        return _sqlite(settings.home / "pagoda.db")
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # The cause is dropped on purpose: its text may quote the password.
        raise _wrong(_ALLOWED) from None
    if url.drivername in _SQLITE:
        if not url.database or url.database == ":memory:" or url.query:
            raise _wrong("a SQLite database must be a plain file: sqlite:///PATH")
        return _sqlite(Path(url.database).expanduser().absolute())
    if url.drivername in _POSTGRESQL:
        return _postgresql(url)
    raise _wrong(_ALLOWED)


def _sqlite(path: Path) -> Address:
    return Address(URL.create("sqlite+aiosqlite", database=str(path)), path)


def _postgresql(url: URL) -> Address:
    if not url.database:
        raise _wrong("the PostgreSQL URL names no database: end it with /DATABASE")
    unknown = sorted(set(url.query) - set(_PARAMETERS))
    if unknown:
        raise _wrong(f"the parameter {unknown[0]} is not supported; allowed are {', '.join(_PARAMETERS)}")
    query = dict(url.query)
    mode = query.pop("sslmode", None)
    if mode is not None:
        # The name that psql and every hosting provider use; asyncpg's own name for it is ``ssl``.
        if mode not in _SSL_MODES:
            raise _wrong(f"sslmode must be one of {', '.join(_SSL_MODES)}")
        query["ssl"] = mode
    return Address(url.set(drivername="postgresql+asyncpg", query=query), None)


def _wrong(reason: str) -> ConfigError:
    return ConfigError([f"storage.url = ***: {reason}"])
