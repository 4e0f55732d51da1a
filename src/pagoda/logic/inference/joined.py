"""The door from another process: the same seven verbs over loopback to the service process that owns the engines."""

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
    Detokenize,
    Embed,
    Embeddings,
    Event,
    Generation,
    Ranking,
    Rerank,
    Score,
    Scores,
    Text,
    Tokenize,
    Tokens,
)
from pagoda.logic.inference.codec import decode, decode_error, decode_line, decode_step, encode
from pagoda.service.fleet import Snapshot, to_wire
from pagoda.service.lifecycle import Order, Step
from pagoda.service.limits.standing import PREFIX, SLOT
from pagoda.service.note import SLOT as NOTE
from pagoda.service.routing.steering import PoolOrder
from pagoda.service.traces import carried

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
        note = NOTE.get()
        if note is not None:
            note.shared = True  # where the time goes is known there
        async with self._post("complete", request, call) as response:
            async for line in response.content:
                if line.strip() and not line.startswith(b":"):  # a comment keeps a silent stream alive
                    event = decode_line(line)
                    if note is not None:
                        note.take(event)
                    yield event

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

    async def detokenize(self, request: Detokenize, call: Call) -> Text:
        """The text of token ids."""
        return await self._ask("detokenize", Text, request, call)

    async def tell_metrics(self, process: str, counted: Snapshot) -> bytes:
        """Tell what this process has counted; the metrics of all processes of the home, as Prometheus reads them."""
        body = orjson.dumps({"process": process, "counted": to_wire(counted)})
        async with self._send("POST", "metrics", body) as response:
            return await response.read()

    async def hold_lease(self, name: str) -> None:
        """Keep the service process alive until this is cancelled; returns when the connection is lost."""
        try:
            async with self._send("GET", f"lease?name={name}", None) as response:
                async for _ in response.content.iter_any():
                    pass
        except Unavailable:
            return  # whoever holds the lease decides whether to try again

    async def states(self) -> dict[str, Any]:
        """State of every model that was asked for, as the service process knows it."""
        async with self._send("GET", "states", None) as response:
            states: dict[str, Any] = orjson.loads(await response.read())
        return states

    async def memory(self) -> dict[str, Any]:
        """The service process's budget of model memory and what of it is set aside."""
        async with self._send("GET", "memory", None) as response:
            memory: dict[str, Any] = orjson.loads(await response.read())
        return memory

    async def steer(self, order: Order) -> AsyncIterator[Step]:
        """Load or unload a model there, step by step."""
        async with self._send("POST", "steer", encode(order)) as response:
            async for line in response.content:
                if line.strip() and not line.startswith(b":"):
                    yield decode_step(line)

    async def cache_state(self) -> dict[str, Any]:
        """What the service process's response cache holds."""
        async with self._send("GET", "cache", None) as response:
            state: dict[str, Any] = orjson.loads(await response.read())
        return state

    async def purge_cache(self, tenant: str | None, model: str | None) -> dict[str, Any]:
        """Forget cached answers of a tenant, a model, both or all."""
        async with self._send("DELETE", "cache", orjson.dumps({"tenant": tenant, "model": model})) as response:
            purged: dict[str, Any] = orjson.loads(await response.read())
        return purged

    async def renew_keys(self) -> None:
        """Have the service process look at the keys again."""
        async with self._send("POST", "keys", b"{}") as response:
            await response.read()

    async def drain(self) -> None:
        """Have the service end when it has finished what it was asked."""
        async with self._send("POST", "drain", b"{}") as response:
            await response.read()

    async def pools(self) -> list[dict[str, Any]]:
        """The service process's pools with their replicas."""
        async with self._send("GET", "pools", None) as response:
            pools: list[dict[str, Any]] = orjson.loads(await response.read())
        return pools

    async def steer_pool(self, order: PoolOrder) -> dict[str, Any]:
        """Add, remove, drain or resume a replica there."""
        async with self._send("POST", "pools", encode(order)) as response:
            replica: dict[str, Any] = orjson.loads(await response.read())
        return replica

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
            headers = {INTERNAL_KEY_HEADER: self._address.key, "Content-Type": "application/json", **carried()}
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
        if (slot := SLOT.get()) is not None:  # how the key stands is known there
            slot |= {name.lower(): value for name, value in response.headers.items() if name.lower().startswith(PREFIX)}
        try:
            if response.status != 200:
                raise decode_error(orjson.loads(await response.read()))
            yield response
        except aiohttp.ClientError as error:
            raise Unavailable("Pagoda's service process stopped in mid-answer; ask again.") from error
        finally:
            response.close()
