"""Opens the limiter that settings describe."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from pagoda.core.settings import Settings
from pagoda.core.types import new_id
from pagoda.service.keys.key import Keys
from pagoda.service.limits.books import Books, Pace
from pagoda.service.limits.limiter import Limiter
from pagoda.service.limits.metrics import LimitMetrics
from pagoda.service.limits.prices import price_table
from pagoda.service.limits.store import EmbeddedMeter, MeterStore
from pagoda.service.telemetry import Telemetry

if TYPE_CHECKING:
    from pagoda.core.storage.store import Store
    from pagoda.service.limits.ledger import Ledger

_SHARED_IDLE_SECONDS = 2.0
_ALONE_IDLE_SECONDS = 60.0


def open_limiter(
    settings: Settings, records: Callable[[], Awaitable[Store]], telemetry: Telemetry, keys: Keys | None = None
) -> Limiter:
    """The limiter with its stores, which may still be away. Raises ``ConfigError`` for prices that make no sense."""
    limits = settings.limits
    metrics = LimitMetrics(telemetry.registry, by_key=limits.metrics_by_key)
    holder, place = holder_id(), place_of(settings)

    def open_ledger() -> Ledger:
        from pagoda.service.limits.ledger import Ledger  # noqa: PLC0415  (not before somebody asks a model)

        return Ledger(records, holder, place)

    idle = _SHARED_IDLE_SECONDS if limits.redis_url else _ALONE_IDLE_SECONDS
    books = Books(open_ledger, Pace(limits.write_seconds, limits.lease_seconds, idle), metrics)
    return Limiter(
        limits, price_table(settings.prices), (_meter(settings, books, holder, metrics), books), metrics, keys
    )


def holder_id() -> str:
    """A name for this process among those that hold slices of budgets: machine, process, and what makes it unique."""
    return new_id(f"{socket.gethostname()[:100]}:{os.getpid()}")


def place_of(settings: Settings) -> str:
    """The machine and home, where one service process lives at a time."""
    home = hashlib.blake2b(str(settings.home.absolute()).encode(), digest_size=8).hexdigest()
    return f"{socket.gethostname()[:300]}:{home}"


def _meter(settings: Settings, books: Books, name: str, metrics: LimitMetrics) -> MeterStore:
    """In this process, or in Redis when an address is set."""
    limits = settings.limits
    if not limits.redis_url:
        return EmbeddedMeter()
    from pagoda.service.limits.redis_meter import RedisMeter, Sharing  # noqa: PLC0415  (only where it is used)

    sharing = Sharing(name, books.living, limits.redis_seconds, limits.lease_seconds, limits.when_store_is_gone)
    return RedisMeter(limits.redis_url.reveal(), sharing, metrics)
