"""Answers that wait: streams with keep-alive, and the end of the work when the client goes away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import orjson
from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pagoda.core.errors import PagodaError
from pagoda.interface.problems import body_of, shape

T = TypeVar("T")

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"
_KEEP_ALIVE = b": keep-alive\n\n"
_QUEUE_FRAMES = 1024


class ClientGone(Exception):
    """Control signal: the client closed its connection; there is nobody to answer."""


def frame(payload: Any) -> bytes:
    """A server-sent event with a JSON payload."""
    return b"data: " + orjson.dumps(payload) + b"\n\n"


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The work's result; it is cancelled as soon as the client goes away (then ``ClientGone`` is raised)."""
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for each in (task, watcher):
            each.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A stream of frames. Frames that are ready together leave in one write; silence is filled with comments.

    The frames' source is closed as soon as the client is gone; an error of the source becomes the last frame.
    """

    media_type = "text/event-stream"

    def __init__(
        self, frames: AsyncIterator[bytes], keepalive: float, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})})
        del self.headers["content-length"]
        self._frames = frames
        self._keepalive = keepalive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, until the source ends or the client goes."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE_FRAMES)
        pump = asyncio.ensure_future(self._pump(queue))
        watcher = asyncio.ensure_future(_disconnected(receive))
        watcher.add_done_callback(lambda _: pump.cancel())
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while True:
                block, more = await self._block(queue)
                await send({"type": "http.response.body", "body": block, "more_body": more})
                if not more:
                    return
        finally:
            for task in (pump, watcher):
                task.cancel()
            await asyncio.gather(pump, watcher, return_exceptions=True)

    async def _pump(self, queue: asyncio.Queue[bytes | None]) -> None:
        try:
            async with aclosing(self._frames) as frames:  # type: ignore[type-var]
                async for item in frames:
                    await queue.put(item)
        except PagodaError as error:
            await queue.put(frame(body_of(error)))
        except asyncio.CancelledError:  # the client is gone: nothing in the queue matters any more
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(None)
            raise
        except Exception:
            logger.exception("a stream failed unexpectedly")
            await queue.put(frame(shape(500, "Pagoda failed unexpectedly; its log says more.", "internal_error")))
        await queue.put(None)

    async def _block(self, queue: asyncio.Queue[bytes | None]) -> tuple[bytes, bool]:
        """All frames that are ready (or a comment after long silence), and whether more can come."""
        try:
            item = queue.get_nowait()
        except asyncio.QueueEmpty:
            try:
                async with asyncio.timeout(self._keepalive):
                    item = await queue.get()
            except TimeoutError:
                return _KEEP_ALIVE, True
        parts: list[bytes] = []
        while item is not None:
            parts.append(item)
            if queue.empty():
                return b"".join(parts), True
            item = queue.get_nowait()
        return b"".join(parts), False
