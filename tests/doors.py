"""A door to no model: answers come from a function, tokens are words, vectors are counts of letters."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from pagoda.core.types import (
    Call,
    Classification,
    Classify,
    Delta,
    Detokenize,
    Embed,
    Embeddings,
    Event,
    Finish,
    Generation,
    Ranking,
    Rerank,
    Score,
    Scores,
    Started,
    Text,
    Tokenize,
    Tokens,
    Usage,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class ScriptedDoor:
    """``Inference`` by a function of the last message and the number of the choice."""

    def __init__(
        self, answer: Callable[[str, int], str] = lambda text, index: text, *, context: int = 1000, seconds: float = 0
    ) -> None:
        self._answer = answer
        self._context = context
        self._seconds = seconds
        self.asked: list[Generation] = []
        self.calls: list[Call] = []
        self.embedded: list[str] = []
        self.counted = 0
        self.running = 0
        self.most_running = 0

    async def complete(self, request: Generation, call: Call) -> AsyncIterator[Event]:
        self.asked.append(request)
        self.calls.append(call)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            await asyncio.sleep(self._seconds)
            said = str((request.messages or ({"content": request.prompt},))[-1]["content"])
            yield Started(request.model, "scripted")
            words = 0
            for index in range(request.n):
                text = self._answer(said, index)
                words += len(text.split())
                yield Delta(index, text)
                yield Finish(index, "stop")
            yield Usage(_words(request.messages or ()), words)
        finally:
            self.running -= 1

    async def embed(self, request: Embed, call: Call) -> Embeddings:
        texts = [str(text) for text in request.inputs]
        self.embedded += texts
        vectors = tuple(_vector(text).tobytes() for text in texts)
        return Embeddings(model=request.model, vectors=vectors, dimensions=len(LETTERS), prompt_tokens=len(texts))

    async def tokenize(self, request: Tokenize, call: Call) -> Tokens:
        self.counted += 1
        count = len((request.text or "").split()) if request.messages is None else _words(request.messages)
        return Tokens(model=request.model, ids=tuple(range(count)), context=self._context)

    async def score(self, request: Score, call: Call) -> Scores:
        raise NotImplementedError

    async def rerank(self, request: Rerank, call: Call) -> Ranking:
        raise NotImplementedError

    async def classify(self, request: Classify, call: Call) -> Classification:
        raise NotImplementedError

    async def detokenize(self, request: Detokenize, call: Call) -> Text:
        raise NotImplementedError


def _words(messages: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(str(message["content"]).split()) for message in messages)


def _vector(text: str) -> array[float]:
    counts = [text.lower().count(letter) for letter in LETTERS]
    norm = sum(count * count for count in counts) ** 0.5 or 1.0
    return array("f", [count / norm for count in counts])
