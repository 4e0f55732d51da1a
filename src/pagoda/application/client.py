"""``pagoda.connect()``: the same words for programs, sync and async.

Without a URL the client joins this home's service process, starting it when there is none, and speaks through the same
door as every other part of Pagoda. With a URL it speaks to that service's public API.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, TypeVar, Unpack

from pagoda.application.joining import find_or_start, hold_lease
from pagoda.core.configuration import load_settings
from pagoda.core.errors import InvalidRequest
from pagoda.core.ports import Inference
from pagoda.core.settings import Defaults, Settings
from pagoda.core.types import (
    Call,
    Classify,
    Delta,
    Embed,
    Generation,
    InputKind,
    Message,
    OutputFormat,
    Rerank,
    Sampling,
    Score,
    Scores,
    Tokenize,
)
from pagoda.logic.inference.answer import Answer, collect
from pagoda.logic.inference.far import FarDoor
from pagoda.logic.inference.joined import JoinedDoor

T = TypeVar("T")


class AnswerOptions(TypedDict, total=False):
    """How an answer is wanted; see ``Sampling`` and ``Generation`` for the meaning of each."""

    model: str | None
    max_tokens: int | None
    temperature: float | None
    seed: int | None
    stop: Sequence[str]
    top_logprobs: int | None
    schema: Mapping[str, Any]
    """The answer is JSON valid against this JSON Schema; one that is not is asked for once more, then refused."""


OpenDoor: TypeAlias = Callable[[], AbstractAsyncContextManager[Inference]]


class AsyncClient:
    """Asks models. Use in ``async with``; every method raises ``PagodaError``."""

    def __init__(self, open_door: OpenDoor, defaults: Defaults) -> None:
        self._open_door = open_door
        self._defaults = defaults
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> AsyncClient:
        """Find the service, or start it."""
        self._door = await self._exit.enter_async_context(self._open_door())
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Leave the service."""
        await self._exit.aclose()

    @property
    def inference(self) -> Inference:
        """The door itself, for what has no short word here."""
        return self._door

    async def chat(self, messages: str | Sequence[Message], **options: Unpack[AnswerOptions]) -> Answer:
        """The whole answer to a message or a conversation."""
        return await collect(self._door, self._generation(messages, options), Call())

    async def stream(self, messages: str | Sequence[Message], **options: Unpack[AnswerOptions]) -> AsyncIterator[str]:
        """The answer's text as it is written; closing the iterator stops it."""
        request = self._generation(messages, options)
        async with aclosing(self._door.complete(request, Call())) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Delta) and event.text:
                    yield event.text

    async def embed(
        self, texts: str | Sequence[str], *, model: str | None = None, kind: InputKind = "raw"
    ) -> list[list[float]]:
        """One vector a text, of unit length."""
        inputs = (texts,) if isinstance(texts, str) else tuple(texts)
        name = model or self._defaults.embedding
        return (await self._door.embed(Embed(model=name, inputs=inputs, kind=kind), Call())).floats()

    async def score(self, context: str, text: str, *, model: str | None = None) -> Scores:
        """Log-probabilities of a text after a context."""
        return await self._door.score(Score(model=model or self._chat, context=context, text=text), Call())

    async def rerank(self, query: str, documents: Sequence[str], *, model: str | None = None) -> list[float]:
        """How well each document answers the query; higher is better."""
        name = model or self._defaults.embedding
        return list(
            (await self._door.rerank(Rerank(model=name, query=query, documents=tuple(documents)), Call())).scores
        )

    async def classify(self, prompt: str, labels: Sequence[str], *, model: str | None = None) -> dict[str, float]:
        """The probability of each label as the continuation of the prompt."""
        request = Classify(model=model or self._chat, prompt=prompt, labels=tuple(labels))
        answer = await self._door.classify(request, Call())
        return dict(zip(labels, answer.probabilities, strict=True))

    async def count_tokens(self, text: str, *, model: str | None = None) -> int:
        """How many tokens a text has for a model."""
        return len((await self._door.tokenize(Tokenize(model=model or self._chat, text=text), Call())).ids)

    @property
    def _chat(self) -> str:
        return self._defaults.chat

    def _generation(self, messages: str | Sequence[Message], options: AnswerOptions) -> Generation:
        turns: tuple[Message, ...] = (
            ({"role": "user", "content": messages},) if isinstance(messages, str) else tuple(messages)
        )
        schema = options.get("schema")
        return Generation(
            model=options.get("model") or self._chat,
            messages=turns,
            sampling=Sampling(temperature=options.get("temperature"), seed=options.get("seed")),
            max_tokens=options.get("max_tokens"),
            stop=tuple(options.get("stop", ())),
            top_logprobs=options.get("top_logprobs"),
            output=None if schema is None else OutputFormat(kind="json_schema", schema=schema),
        )


class Client:
    """``AsyncClient`` for programs without an event loop. Use in ``with``; its loop runs in a thread of its own."""

    def __init__(self, open_door: OpenDoor, defaults: Defaults) -> None:
        self._open_door = open_door
        self._defaults = defaults
        self._client: AsyncClient | None = None

    def __enter__(self) -> Client:
        """Find the service, or start it."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pagoda-client", daemon=True)
        self._thread.start()
        try:
            self._client = self._wait(_entered(self._open_door, self._defaults))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        """Leave the service."""
        self._wait(self._asked.__aexit__(None, None, None))
        self._end()

    def chat(self, messages: str | Sequence[Message], **options: Unpack[AnswerOptions]) -> Answer:
        """The whole answer to a message or a conversation."""
        return self._wait(self._asked.chat(messages, **options))

    def stream(self, messages: str | Sequence[Message], **options: Unpack[AnswerOptions]) -> Iterator[str]:
        """The answer's text as it is written; leaving the loop stops it."""
        pieces = self._asked.stream(messages, **options)
        try:
            while (piece := self._wait(_next(pieces))) is not None:
                yield piece
        finally:
            self._wait(pieces.aclose())  # type: ignore[attr-defined]

    def embed(
        self, texts: str | Sequence[str], *, model: str | None = None, kind: InputKind = "raw"
    ) -> list[list[float]]:
        """One vector a text, of unit length."""
        return self._wait(self._asked.embed(texts, model=model, kind=kind))

    def score(self, context: str, text: str, *, model: str | None = None) -> Scores:
        """Log-probabilities of a text after a context."""
        return self._wait(self._asked.score(context, text, model=model))

    def rerank(self, query: str, documents: Sequence[str], *, model: str | None = None) -> list[float]:
        """How well each document answers the query; higher is better."""
        return self._wait(self._asked.rerank(query, documents, model=model))

    def classify(self, prompt: str, labels: Sequence[str], *, model: str | None = None) -> dict[str, float]:
        """The probability of each label as the continuation of the prompt."""
        return self._wait(self._asked.classify(prompt, labels, model=model))

    def count_tokens(self, text: str, *, model: str | None = None) -> int:
        """How many tokens a text has for a model."""
        return self._wait(self._asked.count_tokens(text, model=model))

    @property
    def _asked(self) -> AsyncClient:
        if self._client is None:
            raise InvalidRequest("Use the client inside `with pagoda.connect() as client:`.")
        return self._client

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _entered(open_door: OpenDoor, defaults: Defaults) -> AsyncClient:
    """Made inside the loop that it will live in."""
    return await AsyncClient(open_door, defaults).__aenter__()


async def _next(pieces: AsyncIterator[str]) -> str | None:
    return await anext(pieces, None)


class Connection:
    """What ``connect()`` gives: enter it with ``with`` or with ``async with``."""

    def __init__(self, open_door: OpenDoor, defaults: Defaults) -> None:
        self._sync = Client(open_door, defaults)
        self._async = AsyncClient(open_door, defaults)

    def __enter__(self) -> Client:
        """A client for plain programs."""
        return self._sync.__enter__()

    def __exit__(self, *exc: object) -> None:
        """Leave."""
        self._sync.__exit__(*exc)

    async def __aenter__(self) -> AsyncClient:
        """A client for asyncio programs."""
        return await self._async.__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        """Leave."""
        await self._async.__aexit__(*exc)


def connect(url: str | None = None, key: str = "") -> Connection:
    """Connect to this machine's Pagoda, starting it for as long as it is needed; or to the one at ``url``.

    There ``key`` is sent, or else the setting ``client.key`` (``PAGODA_API_KEY``); this machine's own needs none.
    Settings come from ``pagoda.toml`` and the environment, as for every command. Raises ``ConfigError`` for wrong ones,
    and on entering ``Unavailable`` when the service cannot be reached or started.
    """
    settings = load_settings({}, os.environ, Path.cwd())
    if url is not None:
        secret = key or settings.client.key.reveal()
        return Connection(lambda: far_door(url, secret), Defaults(chat="", embedding=""))
    return Connection(lambda: home_door(settings, os.environ), settings.defaults)


@asynccontextmanager
async def far_door(url: str, key: str) -> AsyncIterator[Inference]:
    """The door of a service at another address, through its public API."""
    door = FarDoor(url, key)
    try:
        yield door
    finally:
        await door.close()


@asynccontextmanager
async def home_door(settings: Settings, environment: Mapping[str, str]) -> AsyncIterator[JoinedDoor]:
    """This home's service through its internal door, found or started, and held for the block's duration."""
    door = JoinedDoor(lambda: find_or_start(settings, environment))
    try:
        await door.states()  # finds or starts the service, so that a failure is said here
        lease = asyncio.create_task(hold_lease(door, ""))
        try:
            yield door
        finally:
            lease.cancel()
            await asyncio.gather(lease, return_exceptions=True)
    finally:
        await door.close()
