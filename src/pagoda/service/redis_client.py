"""The client of Redis that caches and limits share. It has no patience of its own: who uses it bounds each call."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from pagoda.core.errors import ConfigError


def open_redis(url: str, setting: str, **options: Any) -> Any:
    """A client of ``url``, not connected yet. Raises ``ConfigError`` naming ``setting`` for a URL that is none.

    Its own time limits are off, not only because ours are shorter: with one, it sends through ``asyncio.wait_for``,
    which on Python 3.11 forgets that its task was cancelled when the sending ends in the same moment (cpython issue
    86296). Such a task, and whoever waits for its end, would go on for ever.
    """
    try:
        # redis-py types each command for its sync and its async client at once; Any says less than that, and no lies.
        return Redis.from_url(
            url, retry=Retry(NoBackoff(), 0), socket_connect_timeout=None, socket_timeout=None, **options
        )
    except ValueError as error:
        raise ConfigError([f"{setting} = ***: {error}"]) from error
