"""How a process that owns no engines finds the one that does, and starts it when there is none."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pagoda.core.errors import Unavailable
from pagoda.core.settings import Settings
from pagoda.logic.inference.joined import Address, JoinedDoor
from pagoda.service.presence import Notice, Presence

_LOOK_SECONDS = 0.05
_START_SECONDS = 30.0
_launched: list[subprocess.Popen[bytes]] = []
"""Service processes that this one started; they live on, so nobody waits for them."""


async def find_or_start(settings: Settings, environment: Mapping[str, str]) -> Address:
    """The address of this home's service process. Raises ``Unavailable`` with the reason when it cannot start."""
    presence = Presence(settings.home)
    if (notice := presence.find()) is not None:
        return _address(notice)
    log = settings.home / "logs" / "service.log"
    child = _launch(settings, environment, log)
    try:
        async with asyncio.timeout(_START_SECONDS):
            while (notice := presence.find()) is None:
                if child.poll() not in (None, 0):  # 0: another process was faster, and is about to publish itself
                    raise Unavailable(f"Pagoda's service process did not start: {_last_words(log)}")
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        raise Unavailable(f"Pagoda's service process was not ready in {_START_SECONDS:g} s; see {log}.") from None
    return _address(notice)


def _launch(settings: Settings, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "pagoda", "serve", "--embedded"],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**environment, "PAGODA_HOME": str(settings.home)},
            start_new_session=True,  # Ctrl-C here must not end what others may have joined
        )
    _launched.append(child)
    return child


def _last_words(log: Path) -> str:
    lines = log.read_bytes()[-1000:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"it said nothing (log: {log})."


def _address(notice: Notice) -> Address:
    return Address(notice.url, notice.key)


async def hold_lease(door: JoinedDoor) -> None:
    """Keep the service process alive for as long as this task runs; find it again if it goes."""
    while True:
        await door.hold_lease()
        await asyncio.sleep(_LOOK_SECONDS)
