"""Which process that was, and whether it still lives: a process id alone says nothing, for ids are used again.

A process is told by its id, by the moment of its start as the kernel counts it (ticks since boot, which no change of
the clock moves), and by the machine, its boot and its process namespace.
"""

from __future__ import annotations

import functools
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Process:
    """The identity of a process; ``started`` and ``host`` are only ever compared for equality."""

    pid: int
    started: str
    host: str


def this_process() -> Process:
    """The process that calls."""
    found = process_of(os.getpid())
    if found is None:
        raise RuntimeError("the running process is missing from the process table")
    return found


def process_of(pid: int) -> Process | None:
    """The living process with this id on this machine, if there is one."""
    started = _started(pid)
    return None if started is None else Process(pid, started, host())


def is_alive(process: Process) -> bool | None:
    """Whether the process still lives; ``None`` when that cannot be seen from here (another machine or container)."""
    if process.host != host():
        return None
    started = _started(process.pid)
    if started is None and psutil.pid_exists(process.pid) and not _is_zombie(process.pid):
        return None  # /proc hides other users' processes here
    return started == process.started


@functools.cache
def host() -> str:
    """This machine, its boot and the process namespace, in which process ids have a meaning."""
    if not sys.platform.startswith("linux"):
        return platform.node()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    return f"{platform.node()}/{boot}/{namespace}"


def _started(pid: int) -> str | None:
    """When the process started, by the kernel's count; ``None`` when it is gone or only waits to be reaped."""
    if not sys.platform.startswith("linux"):
        return _started_elsewhere(pid)
    fields = _stat(pid)
    if fields is None or fields[0] in ("Z", "X"):
        return None
    return fields[19]


def _is_zombie(pid: int) -> bool:
    fields = _stat(pid)
    return fields is not None and fields[0] in ("Z", "X")


def _stat(pid: int) -> list[str] | None:
    try:
        content = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return content.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses


def _started_elsewhere(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{process.create_time():.0f}"
    except psutil.Error:
        return None
