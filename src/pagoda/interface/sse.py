"""Answers that wait: streams with keep-alive, and the end of the work when the client goes away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pagoda.core.errors import PagodaError
from pagoda.interface.problems import shape, status_of

T = TypeVar("T")

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"

_UNWATCHED_SECONDS = 0.25
"""How long an answer may take before anybody looks whether its client is still there: looking costs a task."""
_TOGETHER_BYTES = 2**15
"""Of frames that are all there already, so many leave in one write; the next ones wait until the client has room."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a stream fills its silence, and how it tells an error after it has begun."""

    keep_alive: bytes = b": keep-alive\n\n"
    problem: Callable[[int, str, str | None, str | None], bytes] = lambda *told: frame(shape(*told))


OPENAI = Style()


class ClientGone(Exception):
    """Control signal: the client closed its connection; there is nobody to answer."""


def streamed(description: str) -> dict[int | str, dict[str, Any]]:
    """What a route declares that answers with server-sent events, if only with ``stream: true``."""
    # Without a schema: tools that read OpenAPI hold single events against it, not the stream.
    return {200: {"description": description, "content": {"text/event-stream": {}}}}


def frame(payload: Any) -> bytes:
    """A server-sent event with a JSON payload."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def typed_frame(payload: Mapping[str, Any]) -> bytes:
    """A server-sent event that is called as its payload's ``type`` says."""
    return f"event: {payload['type']}\n".encode() + frame(payload)


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The work's result; it is cancelled as soon as the client goes away (then ``ClientGone`` is raised)."""
    task, gone = asyncio.current_task(), False
    watcher: asyncio.Task[None] | None = None

    def leave(watcher: asyncio.Task[None]) -> None:
        nonlocal gone
        if task is not None and not watcher.cancelled():
            gone = task.cancel()

    def watch() -> None:
        nonlocal watcher
        watcher = asyncio.create_task(_disconnected(request.receive))
        watcher.add_done_callback(leave)

    begin = asyncio.get_running_loop().call_later(_UNWATCHED_SECONDS, watch)
    try:
        return await work
    except asyncio.CancelledError:
        if gone and task is not None and task.cancelling() == 1:
            raise ClientGone from None
        raise
    finally:
        begin.cancel()
        if watcher is not None:
            watcher.remove_done_callback(leave)
            watcher.cancel()
        if gone and task is not None:
            task.uncancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A stream of frames, each sent as it comes; silence is filled with comments.

    The frames' source is closed as soon as the client is gone; an error of the source becomes the last frame. Frames of
    an answer that is ``replayed`` are there already and leave together: only whoever makes them knows that, since a
    source that is asked for one more does not say whether it will have to wait.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncIterator[bytes],
        keepalive: float,
        headers: Mapping[str, str] | None = None,
        style: Style = OPENAI,
        *,
        replayed: bool = False,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._frames = frames
        self._keepalive = keepalive
        self._style = style
        self._together = _TOGETHER_BYTES if replayed else 0
        self._held = b""
        self._sent = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, until the source ends or the client goes."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._sent = time.monotonic()
        filler: asyncio.Task[None] | None = None

        def fill() -> None:
            nonlocal filler
            filler = asyncio.create_task(self._fill_silence(send))

        begin = asyncio.get_running_loop().call_later(self._keepalive, fill)  # few streams live so long: no task before
        try:
            with contextlib.suppress(ClientGone):
                await while_connected(Request(scope, receive), self._write(send))
        finally:
            begin.cancel()
            if filler is not None:
                filler.cancel()
                await asyncio.gather(filler, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        try:
            async with aclosing(self._frames) as frames:  # type: ignore[type-var]
                async for block in frames:
                    if len(self._held) + len(block) < self._together:
                        self._held += block
                    else:
                        await self._send(send, block)
        except PagodaError as error:
            await self._send(send, self._style.problem(status_of(error), error.message, error.code, error.param))
        except Exception:
            logger.exception("a stream failed unexpectedly")
            said = "Pagoda failed unexpectedly; its log says more."
            await self._send(send, self._style.problem(500, said, "internal_error", None))
        await send({"type": "http.response.body", "body": self._held, "more_body": False})

    async def _send(self, send: Send, block: bytes) -> None:
        self._sent = time.monotonic()
        block, self._held = self._held + block, b""
        await send({"type": "http.response.body", "body": block, "more_body": True})

    async def _fill_silence(self, send: Send) -> None:
        while True:
            silence = time.monotonic() - self._sent
            if silence >= self._keepalive:
                await self._send(send, self._style.keep_alive)
                silence = 0.0
            await asyncio.sleep(self._keepalive - silence)
