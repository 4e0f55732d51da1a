"""What goes over the wire to an engine: a request with its answer, and the frames of a stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import aiohttp
import orjson

from pagoda.core.errors import ModelError, Unavailable


class Posted:
    """A block with an answered request. A class, since a generator would cost every request its price.

    ``translate`` makes one of our errors of a refusal, ``failure`` of what the transport raised.
    """

    def __init__(
        self,
        translate: Callable[[int, Mapping[str, Any]], ModelError],
        failure: Callable[[BaseException], ModelError | None],
        asking: Awaitable[aiohttp.ClientResponse],
    ) -> None:
        self._translate = translate
        self._failure = failure
        self._asking = asking
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            response = self._response = await self._asking
            if response.status >= 300:
                refusal = self._translate(response.status, await _error_of(response))
                if response.status in (429, 503):
                    refusal.retry_after = _seconds(response.headers.get("Retry-After", ""))
                raise refusal
        except BaseException as error:
            self._leave()
            if (failure := self._failure(error)) is not None:
                raise failure from error
            raise
        return response

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        if error is not None and (failure := self._failure(error)) is not None:
            raise failure from error

    def _leave(self) -> None:
        if self._response is None:
            return
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class Frames:
    """The JSON payloads of a server-sent event stream, up to ``[DONE]``. Comments and other fields are skipped."""

    def __init__(self) -> None:
        self.over = False
        self._rest = b""

    def feed(self, block: bytes) -> Iterator[dict[str, Any]]:
        """The payloads that have become whole. Raises ``Unavailable`` for one that is not JSON."""
        lines = (self._rest + block).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                self.over = True
                return
            try:
                yield orjson.loads(data)
            except orjson.JSONDecodeError as error:
                raise Unavailable("The engine sent a frame that is not JSON.") from error


async def _error_of(response: aiohttp.ClientResponse) -> Mapping[str, Any]:
    """The ``error`` object of a refusal, whatever the server made of it."""
    raw = await response.read()
    try:
        payload = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {"message": raw[:200].decode("utf-8", "replace")}
    error = payload.get("error", payload) if isinstance(payload, dict) else payload
    return error if isinstance(error, dict) else {"message": str(error)}


def _seconds(header: str) -> float | None:
    """The seconds of a ``Retry-After``; its other form, a date, is not used between engines."""
    try:
        return max(float(header), 0.0)
    except ValueError:
        return None


def first_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    return (str(error) or type(error).__name__).splitlines()[0]
