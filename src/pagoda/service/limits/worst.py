"""The most that a request can use, before anybody has counted a token: bytes bound tokens.

Every token of a text stands for at least one of its bytes, in byte-level vocabularies and in those that fall back to
bytes. Embedding models may normalise first, which can lengthen a text, so theirs is bounded after NFKC.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import orjson

from pagoda.core.types import Embed, Generation, Message, Score

MESSAGE_TOKENS = 16
"""What a chat template puts around one message, at most."""


@dataclass(slots=True)  # made for every request: freezing would triple what that costs
class Worst:
    """Bounds of one call, in tokens."""

    prompt: int
    answer: int | None = 0
    """Most tokens of one choice; ``None``: not said."""
    choices: int = 1
    context: int | None = None
    """What the model's context holds, where that is known: no choice can be longer."""


def worst_generation(request: Generation, template_tokens: int, context: int | None) -> Worst:
    """The bounds of a generation; ``template_tokens`` is what a chat template may add by itself."""
    if request.messages is not None:
        prompt = template_tokens + sum(_message_bytes(message) + MESSAGE_TOKENS for message in request.messages)
        if request.toolset is not None:
            prompt += len(orjson.dumps(request.toolset, default=dict))
    else:
        prompt = _length(request.prompt or "") + 1
    if context is not None and prompt > context:
        prompt = context  # a longer one is refused before anything is computed
    return Worst(prompt, request.max_tokens, request.n, context)


def worst_embedding(request: Embed, template_tokens: int) -> Worst:
    """The bounds of an embedding request: its prompts, each with its prefix and special tokens."""
    each = template_tokens if request.kind != "raw" else 4
    return Worst(sum(_normalised_length(text) + each for text in request.inputs))


def worst_score(request: Score) -> Worst:
    """The bounds of scoring a given text."""
    return Worst(_length(request.context) + _length(request.text) + 2)


def _message_bytes(message: Message) -> int:
    total = 0
    for value in message.values():
        if isinstance(value, str):
            total += len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        elif value is not None:
            total += len(orjson.dumps(value))
    return total


def _length(prompt: str | tuple[int, ...]) -> int:
    if isinstance(prompt, str) and not prompt.isascii():
        return len(prompt.encode("utf-8", "surrogatepass"))
    return len(prompt)


def _normalised_length(text: str | tuple[int, ...]) -> int:
    if not isinstance(text, str) or text.isascii():
        return len(text)
    return max(_length(text), _length(unicodedata.normalize("NFKC", text)))
