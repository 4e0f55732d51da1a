"""What a lower storey may ask of a higher one, and what one storey offers another, as typed callables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

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


class Inference(Protocol):
    """The one door to the models: seven verbs, the same in process and over loopback.

    All raise ``UserError`` for what cannot be asked and ``ModelError`` for what did not succeed. Closing the
    iterator of ``complete`` (or cancelling the task of any verb) frees the engine.
    """

    def complete(self, request: Generation, call: Call) -> AsyncIterator[Event]:
        """Text for a prompt or a conversation, as it is produced."""
        ...

    async def embed(self, request: Embed, call: Call) -> Embeddings:
        """Vectors for texts."""
        ...

    async def score(self, request: Score, call: Call) -> Scores:
        """Log-probabilities of a given text."""
        ...

    async def rerank(self, request: Rerank, call: Call) -> Ranking:
        """Documents scored against a query."""
        ...

    async def classify(self, request: Classify, call: Call) -> Classification:
        """Probabilities of labels."""
        ...

    async def tokenize(self, request: Tokenize, call: Call) -> Tokens:
        """Token ids of a text or conversation."""
        ...

    async def detokenize(self, request: Detokenize, call: Call) -> Text:
        """The text of token ids."""
        ...


class Progress(Protocol):
    """Told how far long work has come; ``total`` is ``None`` while unknown. Units are the caller's (bytes, rows)."""

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Take note."""
        ...
