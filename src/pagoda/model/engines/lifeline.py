"""What every engine process does about its parent: read its configuration, report ready, and never outlive it.

Two cords, because each alone can fail: on Linux the kernel sends SIGKILL when the parent dies (which works while
native code holds the interpreter or the process is stopped), and everywhere a thread ends the process when standard
input, held open by the parent, closes.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import orjson

_PR_SET_PDEATHSIG = 1
_REPORTS = os.fdopen(os.dup(1), "wb", buffering=0)


def follow_parent(word: signal.Signals) -> None:
    """Get a signal when the parent dies (on Linux)."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, word)
        if os.getppid() != parent:  # it died between start and prctl: nobody would tell us any more
            os._exit(1)


def read_config(before_end: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Tie this process to its parent and read the one JSON line the parent sends on standard input.

    ``before_end`` is called when the parent has closed standard input, before this process ends.
    """
    follow_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    os.dup2(2, 1)  # native code that prints must not end up among our reports
    line = sys.stdin.buffer.readline()
    if not line:
        os._exit(1)
    threading.Thread(target=_end_with_parent, args=(before_end,), daemon=True).start()
    config: dict[str, Any] = orjson.loads(line)
    return config


def _end_with_parent(before_end: Callable[[], None]) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    before_end()
    os._exit(0)


def report(**message: Any) -> None:
    """Send the parent one JSON line: ``url=...`` when ready, ``error=...`` when that will not happen.

    An engine that knows the reason for sure sends a ``code`` with it.
    """
    _REPORTS.write(orjson.dumps(message) + b"\n")
