"""The end of a service, in order: say so, stop listening, finish what was taken, wait for connections, exit.

Nothing is lost behind a proxy that knows only what connections tell it: while the end is announced every answer closes
its connection; the listener goes without resetting anybody; and a connection that a long stream has just given back
to its proxy stays open for as long as the proxy may use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import socket
import struct
import sys
import time
from collections.abc import Callable

import uvicorn

from pagoda.core.settings import Server
from pagoda.interface.turnstile import Gate

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.02
_HANDSHAKE_SECONDS = 0.1
_SO_ATTACH_FILTER = 26
_NO_NEW_CONNECTIONS = (
    (0x30, 0, 0, 13),  # load the byte of TCP flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone, the first packet of a connection,
    (0x06, 0, 0, 0),  # is dropped
    (0x06, 0, 0, 0xFFFFFFFF),  # all else passes
)
"""A packet filter in the kernel's form (``struct sock_filter``)."""


class Drain:
    """The end of one server, whose public listener is its first."""

    def __init__(
        self,
        server: uvicorn.Server,
        gate: Gate,
        settings: Server,
        *,
        listener: socket.socket,
        announced: Callable[[], None],
        spread: Callable[[], None] | None = None,
    ) -> None:
        self._server = server
        self._gate = gate
        self._settings = settings
        self._listener = listener
        self._announced = announced
        self._spread = spread
        self.others_stand_on_it = False
        """Whether workers ask models through this process, which then ends after them."""
        self._hurried = asyncio.Event()
        self._released = asyncio.Event()
        self._told = False

    def ask(self) -> None:
        """Begin to end, on the word of whoever looks after this process."""
        self._told = True
        self._gate.asked.set()

    def release(self) -> None:
        """Nobody else stands on this process any more."""
        self._released.set()

    def hurry(self) -> None:
        """Begin to end without telling proxies; asked twice, wait for nobody."""
        if self._hurried.is_set():
            self._server.force_exit = True
            self._server.should_exit = True
        self._hurried.set()
        self._told = True
        self._gate.asked.set()

    async def carry_out(self) -> None:
        """Wait until the end is asked for, and carry it out."""
        await self._gate.asked.wait()
        if self._spread is not None and not self._told:
            self._spread()  # it was asked over HTTP, and one worker was asked for all
        grace = self._settings.drain_grace_seconds
        logger.info("draining: %d requests are inside", self._gate.inside)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._hurried.wait()
        quietly = grace > 0 and not self._hurried.is_set()
        if quietly and drop_newcomers(self._listener):
            await asyncio.sleep(_HANDSHAKE_SECONDS)  # whoever had begun to connect is let in
        self._server.servers[0].close()
        self._gate.shut = True
        self._announced()
        if not await _comes_true(lambda: not self._gate.inside, self._settings.drain_seconds):
            logger.warning(
                "%d requests were not done after %g s and are cut (server.drain_seconds)",
                self._gate.inside,
                self._settings.drain_seconds,
            )
        if self.others_stand_on_it:
            await _comes_true(self._released.is_set, self._settings.drain_seconds + grace)
        if quietly:
            await _comes_true(lambda: not self._server.server_state.connections, grace)
        self._server.should_exit = True


async def _comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    """Look until it is true, or the time is over: nobody tells of connections, and requests tell on the hot path."""
    end = time.monotonic() + seconds
    while True:
        if condition():
            return True
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(_LOOK_SECONDS)


def drop_newcomers(listener: socket.socket) -> bool:
    """Have the kernel ignore attempts to connect, which come again to a closed port and are refused there.

    A listener that is simply closed resets those who had connected but were not accepted yet, and a proxy cannot know
    that their requests were never read. Only Linux can do it; gives whether it did.
    """
    if sys.platform != "linux":
        return False
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_NEW_CONNECTIONS))
    program = struct.pack("HL", len(_NO_NEW_CONNECTIONS), ctypes.addressof(code))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError as error:
        logger.warning("the listener is closed without care, since the system refuses a filter: %s", error)
        return False
    return True
