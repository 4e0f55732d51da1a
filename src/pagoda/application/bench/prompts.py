"""What is asked: texts of a wanted number of tokens, another for every request unless a shared prefix is wanted.

Texts are made of frequent English words, most of which are one token in any vocabulary; which are is asked of the
target (``target``), and what each answer's usage says is what is reported.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import orjson

from pagoda.core.errors import InvalidRequest

Endpoint: TypeAlias = Literal["chat", "completions", "embeddings"]

_FREQUENT = """
the and that have with this from they would there their what about which when make like time just know take
people into year your good some could them other than then look only come over think also back after work first
well even want because these give most water house world school still hand high place while found live where
great much before line right mean same tell three small large home read land here must big such follow change
kind need try again animal point mother near build self earth father head stand own page country answer grow
study learn plant cover food sun four state keep eye never last let city tree cross farm hard start might story
"""
WORDS = tuple(_FREQUENT.split())


@dataclass(frozen=True, slots=True)
class Recipe:
    """How texts are made: the words, the tokens that each takes on average, and those that any request has beside."""

    words: tuple[str, ...] = WORDS
    tokens_per_word: float = 1.0
    overhead: int = 0
    """Of the chat template and special tokens."""
    exact: bool = False
    """Whether every word is one token, so that lengths are what was wanted."""

    def count(self, tokens: int) -> int:
        """The words that make a prompt of so many tokens."""
        return max(1, round((tokens - self.overhead) / self.tokens_per_word))

    def text(self, tokens: int, number: int, seed: int, shared: int = 0) -> str:
        """The text of request ``number``; its first ``shared`` tokens are the same for all of a seed."""
        size = self.count(tokens)
        same = min(round(shared / self.tokens_per_word), size)
        prefix = random.Random(f"shared {seed}").choices(self.words, k=same)
        return " ".join([*prefix, *random.Random(f"{seed}/{number}").choices(self.words, k=size - same)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What every request of a measurement has in common."""

    endpoint: Endpoint
    model: str
    input_tokens: int = 512
    output_tokens: int = 256
    shared_prefix: int = 0
    temperature: float = 0.0
    ignore_eos: bool = False
    seed: int = 0
    recipe: Recipe = Recipe()
    dataset: tuple[dict[str, Any], ...] = ()
    """Rows that are asked in turn, instead of made texts."""

    def body(self, number: int) -> dict[str, Any]:
        """The JSON body of request ``number``."""
        if self.dataset:
            row = self.dataset[number % len(self.dataset)]
            return self._filled(row.get("messages") or row["prompt"], row.get("max_tokens"))
        return self._filled(self.recipe.text(self.input_tokens, number, self.seed, self.shared_prefix))

    def with_text(self, text: str) -> dict[str, Any]:
        """A body that asks for the shortest answer to a text."""
        return self._filled(text, 1)

    def _filled(self, asked: Any, length: int | None = None) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model}
        if self.endpoint == "embeddings":
            return body | {"input": asked}
        body |= {"max_tokens": length or self.output_tokens, "temperature": self.temperature}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        if self.ignore_eos:
            body["ignore_eos"] = True
        if self.endpoint == "completions":
            return body | {"prompt": asked}
        return body | {"messages": asked if isinstance(asked, list) else [{"role": "user", "content": asked}]}


def taught(request: Request, recipe: Recipe, *, ignore_eos: bool) -> Request:
    """The request as the target takes it."""
    return replace(request, recipe=recipe, ignore_eos=ignore_eos)


def read_dataset(path: Path, endpoint: Endpoint) -> tuple[dict[str, Any], ...]:
    """The rows of a JSON Lines file: ``prompt`` or (for chat) ``messages``, and ``max_tokens`` if wanted."""
    try:
        lines = path.read_bytes().splitlines()
        rows: list[Any] = [orjson.loads(line) for line in lines if line.strip()]
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.", param="dataset") from error
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"{path} is not JSON Lines: {error}.", param="dataset") from error
    for place, row in enumerate(rows, start=1):
        _check_row(row, endpoint, f"{path}, row {place}")
    if not rows:
        raise InvalidRequest(f"{path} has no rows.", param="dataset")
    return tuple(rows)


def _check_row(row: Any, endpoint: Endpoint, place: str) -> None:
    asked: Sequence[Any] | None = None
    if isinstance(row, dict):
        asked = row.get("messages") if endpoint == "chat" and "messages" in row else row.get("prompt")
    if not asked or not isinstance(asked, str | list):
        wanted = "prompt or messages" if endpoint == "chat" else "prompt"
        raise InvalidRequest(f"{place}: it must be an object with {wanted}.", param="dataset")
    length = row.get("max_tokens")
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
        raise InvalidRequest(f"{place}: max_tokens must be a whole number of at least 1.", param="dataset")
