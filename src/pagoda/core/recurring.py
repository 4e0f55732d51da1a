"""Work that is done again and again for as long as a process lives; what is expected to fail is the work's own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

logger = logging.getLogger(__name__)


async def recur(work: Callable[[], Awaitable[object]], seconds: float, *, at_once: bool = False) -> NoReturn:
    """Wait so many seconds, do the work, and so on until cancelled; ``at_once``: the first time without the wait.

    What the work did not expect is logged, and its next turn comes all the same: nobody sees that a task of the
    background has ended, only much later that revoked keys still work.
    """
    wait = 0.0 if at_once else seconds
    while True:
        await asyncio.sleep(wait)
        wait = seconds
        try:
            await work()
        except Exception:
            logger.exception("%s failed unexpectedly; it is tried again in %g s", work.__qualname__, seconds)
