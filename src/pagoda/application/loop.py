"""The event loop of Pagoda's own processes: uvloop where there is one, and a garbage collector that fits a service."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable

_YOUNG, _MIDDLE, _OLD = 20_000, 20, 50


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What ``asyncio.Runner`` takes; ``None`` leaves Python's own."""
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def collect_less() -> None:
    """Leave what start-up has made out of every later collection, and collect less often. For a service, once.

    Python's own thresholds are for scripts: at a thousand requests a second it looks through all that is imported
    several times a second, which costs a request a third of its time, and stops every stream for as long.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
