"""How a process that owns no engines finds the one that does, and starts it when there is none."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from pagoda.core.errors import Unavailable
from pagoda.core.settings import Settings
from pagoda.logic.inference.joined import Address, JoinedDoor
from pagoda.service.presence import Notice, Presence

_LOOK_SECONDS = 0.05
_START_SECONDS = 30.0


async def find_or_start(settings: Settings, environment: Mapping[str, str]) -> Address:
    """The address of this home's service process. Raises ``Unavailable`` with the reason when it cannot start."""
    presence = Presence(settings.home)
    if (notice := presence.find()) is not None:
        return _address(notice)
    log = settings.home / "logs" / "service.log"
    pid = _launch(settings, environment, log)
    try:
        async with asyncio.timeout(_START_SECONDS):
            while (notice := presence.find()) is None:
                status = _status_of(pid)
                if status == 0:  # the home was still another's, which may be about to end and never publish itself
                    pid = _launch(settings, environment, log)
                elif status is not None:
                    raise Unavailable(f"Pagoda's service process did not start: {_last_words(log)}")
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        raise Unavailable(f"Pagoda's service process was not ready in {_START_SECONDS:g} s; see {log}.") from None
    return _address(notice)


async def wait_for_owner(settings: Settings) -> Address:
    """The address of the worker that owns the engines, which may be starting again. Raises ``Unavailable``."""
    presence = Presence(settings.home)
    try:
        async with asyncio.timeout(_START_SECONDS):
            while True:
                if (notice := presence.find()) is not None:
                    return _address(notice)
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        raise Unavailable("The worker that owns the engines did not come back in time; ask again.") from None


def join_running(settings: Settings) -> JoinedDoor | None:
    """The door of this home's service process, if one runs; it starts none."""
    notice = Presence(settings.home).find()
    if notice is None:
        return None

    async def find() -> Address:
        return _address(notice)

    return JoinedDoor(find)


def _launch(settings: Settings, environment: Mapping[str, str], log: Path) -> int:
    """Start a service process that outlives this one, in a session of its own, so that Ctrl-C here does not end it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "pagoda", "serve", "--embedded"],
        {**environment, "PAGODA_HOME": str(settings.home)},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _status_of(pid: int) -> int | None:
    """The exit status of a child of ours; ``None`` while it runs."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended == pid else None


def _last_words(log: Path) -> str:
    lines = log.read_bytes()[-1000:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"it said nothing (log: {log})."


def _address(notice: Notice) -> Address:
    return Address(notice.url, notice.key)


async def hold_lease(door: JoinedDoor, name: str) -> None:
    """Keep the service process alive for as long as this task runs; find it again if it goes."""
    while True:
        await door.hold_lease(name)
        await asyncio.sleep(_LOOK_SECONDS)
