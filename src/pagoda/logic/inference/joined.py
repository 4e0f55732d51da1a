"""The door from another process: the same six verbs over loopback to the service process that owns the engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import orjson

from pagoda.core.errors import Unavailable
from pagoda.core.types import (
    Call,
    Classification,
    Classify,
    Embed,
    Embeddings,
    Event,
    Generation,
    Ranking,
    Rerank,
    Score,
    Scores,
    Tokenize,
    Tokens,
)
from pagoda.logic.inference.codec import decode, decode_error, decode_line, encode

T = TypeVar("T")

INTERNAL_KEY_HEADER = "X-Pagoda-Internal-Key"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the service process listens on loopback, and the key that its own people use."""

    url: str
    key: str


class JoinedDoor:
    """``Inference`` over loopback. ``find`` gives the service's address, starting it if there is none."""

    def __init__(self, find: Callable[[], Awaitable[Address]]) -> None:
        self._find = find
        self._address: Address | None = None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None, sock_connect=10)
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def complete(self, request: Generation, call: Call) -> AsyncIterator[Event]:
        """Stream an answer."""
        async with self._post("complete", request, call) as response:
            async for line in response.content:
                if line.strip() and not line.startswith(b":"):  # a comment keeps a silent stream alive
                    yield decode_line(line)

    async def embed(self, request: Embed, call: Call) -> Embeddings:
        """Vectors for texts."""
        return await self._ask("embed", Embeddings, request, call)

    async def score(self, request: Score, call: Call) -> Scores:
        """Log-probabilities of a given text."""
        return await self._ask("score", Scores, request, call)

    async def rerank(self, request: Rerank, call: Call) -> Ranking:
        """Documents scored against a query."""
        return await self._ask("rerank", Ranking, request, call)

    async def classify(self, request: Classify, call: Call) -> Classification:
        """Probabilities of labels."""
        return await self._ask("classify", Classification, request, call)

    async def tokenize(self, request: Tokenize, call: Call) -> Tokens:
        """Token ids of a text or conversation."""
        return await self._ask("tokenize", Tokens, request, call)

    async def hold_lease(self) -> None:
        """Keep the service process alive until this is cancelled; returns when the connection is lost."""
        try:
            async with self._send("GET", "lease", None) as response:
                async for _ in response.content.iter_any():
                    pass
        except Unavailable:
            return  # whoever holds the lease decides whether to try again

    async def states(self) -> dict[str, Any]:
        """State of every model that was asked for, as the service process knows it."""
        async with self._send("GET", "states", None) as response:
            states: dict[str, Any] = orjson.loads(await response.read())
        return states

    async def _ask(self, verb: str, kind: type[T], request: Any, call: Call) -> T:
        async with self._post(verb, request, call) as response:
            return decode(kind, await response.read())

    @asynccontextmanager
    async def _post(self, verb: str, request: Any, call: Call) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self._send("POST", verb, encode({"request": request, "call": call})) as response:
            yield response

    @asynccontextmanager
    async def _send(self, method: str, path: str, body: bytes | None) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask the service; if it is gone before it took the request, find (or start) it again, once."""
        response = None
        for attempt in (1, 2):
            if self._address is None:
                self._address = await self._find()
            headers = {INTERNAL_KEY_HEADER: self._address.key, "Content-Type": "application/json"}
            url = f"{self._address.url}/internal/v1/{path}"
            try:
                response = await self._session.request(method, url, data=body, headers=headers)
                break
            except aiohttp.ClientConnectorError as error:
                self._address = None
                if attempt == 2:
                    raise Unavailable("Pagoda's service process cannot be reached.") from error
            except aiohttp.ClientError as error:
                raise Unavailable("Pagoda's service process broke the connection; ask again.") from error
        if response is None:
            raise RuntimeError("both attempts end in a response or an error")
        try:
            if response.status != 200:
                raise decode_error(orjson.loads(await response.read()))
            yield response
        except aiohttp.ClientError as error:
            raise Unavailable("Pagoda's service process stopped in mid-answer; ask again.") from error
        finally:
            response.close()
