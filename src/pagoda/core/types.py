"""The one form in which Pagoda speaks of model calls, between all storeys.

Values only: frozen dataclasses without behaviour that could need another module. HTTP schemas live in
``pagoda.interface``, an engine's own habits in its dialect under ``pagoda.model.engines``.
"""

from __future__ import annotations

import os
import random
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Json: TypeAlias = Any
"""Any JSON value; kept loose on purpose, since recursive aliases help no reader."""

Message: TypeAlias = Mapping[str, Json]
"""A chat message in OpenAI's form (``role``, ``content``, ...), validated at the interface."""

Purpose: TypeAlias = Literal["answer", "judge", "guard", "evaluation", "batch", "ingestion", "internal"]
InputKind: TypeAlias = Literal["raw", "query", "passage"]
CacheUse: TypeAlias = Literal["hit", "miss", "bypass"]
CacheWish: TypeAlias = Literal["default", "use", "refresh", "bypass", "only"]
"""``use`` takes and keeps answers that are drawn at random too, ``only`` never asks the engine."""
FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]
ToolMode: TypeAlias = Literal["auto", "none", "required"]
Reasoning: TypeAlias = Literal["separate", "hidden", "inline"]
"""What becomes of the text by which a model thinks: a field of its own, nothing, or a part of the text as written."""


_random = random.Random()  # asking the system for randomness costs each request more than all else that names it
os.register_at_fork(after_in_child=_random.seed)

PRIORITIES: Mapping[str, int] = {"interactive": 0, "normal": 10, "batch": 20}
"""The named priorities of calls; any whole number from 0 to 99 is one."""


def new_id(prefix: str) -> str:
    """A fresh identifier such as ``chatcmpl-3f2c...``: the prefix and 128 random bits. Unique, not secret."""
    return f"{prefix}-{_random.getrandbits(128):032x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Who asks, why, and within which bounds; travels unchanged with every model call.

    A call made on behalf of another (a judge, a guard, a step of an agent) names it in ``parent`` and says so in
    ``purpose``, so that it cannot trigger itself again.
    """

    request_id: str = field(default_factory=lambda: new_id("req"))
    tenant: str = "local"
    """The team that asks; answers in the cache and turns in the queue are kept apart by it."""
    key_id: str | None = None
    """The key that asks and whose limits hold; ``None``: this machine's own user, or Pagoda itself."""
    user: str | None = None
    """Whom the client says it asks for."""
    deadline: float | None = None
    """Unix time in seconds after which the answer is useless; ``None`` means no limit."""
    priority: int = 10
    """Smaller is sooner; ``PRIORITIES`` names the usual ones."""
    purpose: Purpose = "answer"
    guards: Literal["default", "none"] = "default"
    route: str = ""
    """The endpoint that was asked, such as ``/v1/chat/completions``; empty for programs."""
    cache: CacheWish = "default"
    cache_max_age: float | None = None
    """Oldest cached answer that will do, seconds."""
    whole: bool = False
    """Whether nobody sees the pieces of the answer: one that is kept need not be taken apart again."""
    parent: str | None = None
    unit: str | None = None
    """Whom an experiment assigns, as ``X-Experiment-Unit`` says; without it the user, or else the key."""
    prompt: str | None = None
    """The kept prompt and version that the messages come from, as in ``summary@3``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn. ``None`` means the model's own default, which the engine is always told explicitly."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: Mapping[int, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFormat:
    """The form the answer must have: any JSON object, or JSON valid against ``schema``."""

    kind: Literal["json_object", "json_schema"]
    name: str = "answer"
    schema: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """A tool as models are told of it: its name, what it does, and the JSON Schema of its arguments (an object)."""

    name: str
    description: str = ""
    parameters: Mapping[str, Json] = field(default_factory=lambda: {"type": "object", "properties": {}})


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolset:
    """The tools that an answer may call, and whether it must."""

    tools: tuple[ToolSpec, ...]
    mode: ToolMode = "auto"
    """``auto``: a call or text, as the model likes; ``required``: at least one call."""
    only: str | None = None
    """The one tool that must be called; it goes with ``required``."""
    parallel: bool = True
    """Whether there may be several calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A request for text: exactly one of ``messages`` (chat) and ``prompt`` (plain text or token ids) is set."""

    model: str
    messages: tuple[Message, ...] | None = None
    prompt: str | tuple[int, ...] | None = None
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    """New tokens at most; ``None`` means as many as the context holds."""
    stop: tuple[str, ...] = ()
    n: int = 1
    top_logprobs: int | None = None
    """``None``: no log-probabilities; ``k``: those of the chosen token and of the ``k`` likeliest at each place."""
    output: OutputFormat | None = None
    continue_final: bool = False
    """Continue the last (assistant) message instead of answering it."""
    echo: bool = False
    """Completions only: the answer starts with the prompt."""
    reasoning: Reasoning = "separate"
    """Chat only: where a model that thinks before it answers puts that text."""
    toolset: Toolset | None = None
    """Chat only: the tools that the answer may call."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, the natural logarithm of its probability, its UTF-8 bytes, and the likeliest rivals at its place."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top: tuple[TokenLogprob, ...] = ()
    id: int | None = None
    """The token's number in the model's vocabulary, where the engine tells it."""


@dataclass(frozen=True, slots=True)
class Started:
    """First event of a generation: what answers it, and what the caller should know about that."""

    model: str
    engine: str
    warnings: tuple[str, ...] = ()
    cache: CacheUse = "bypass"
    """``hit``: no engine computed this for this call, which is therefore charged nothing by default."""
    replayed: bool = False
    """Whether a kept answer is given again, all of which is there already."""


@dataclass(frozen=True, slots=True)
class Delta:
    """More text of choice ``index``."""

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    reasoning: str = ""
    pieces: int = 1
    """How many pieces it came in from the engine; where tokens have to be estimated, a piece counts as one."""


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of tool call number ``place`` of choice ``index``; its first piece brings ``id`` and ``name``."""

    index: int
    place: int
    arguments: str = ""
    """A piece of the JSON text of the arguments."""
    id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Finish:
    """Choice ``index`` is complete."""

    index: int
    reason: FinishReason
    stop: str | None = None
    """The stop sequence that ended it, where the engine tells."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Last event: tokens of the prompt, of all choices together, and how many of the prompt's came from a cache."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    """Of the completion's tokens, those spent on thinking, counted in the pieces that the engine sent."""


Event: TypeAlias = Started | Delta | CallDelta | Finish | Usage
"""A generation is ``Started``, then ``Delta``, ``CallDelta`` and ``Finish`` in any order of choices, then ``Usage``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed:
    """A request for embeddings of texts or token ids; ``kind`` chooses the prefix the model was trained with."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    kind: InputKind = "raw"
    dimensions: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """One vector an input, in the input's order, each as little-endian float32 bytes of unit L2 norm."""

    model: str
    vectors: tuple[bytes, ...]
    dimensions: int
    prompt_tokens: int
    engine: str = ""
    cache: CacheUse = "bypass"
    """``hit``: no engine computed this for this call."""

    def floats(self) -> list[list[float]]:
        """The vectors as lists of numbers."""
        return [array("f", vector).tolist() for vector in self.vectors]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A request for the log-probability of every token of ``text`` after ``context``."""

    model: str
    context: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The tokens of the scored text with their log-probabilities (natural logarithm)."""

    model: str
    tokens: tuple[TokenLogprob, ...]
    prompt_tokens: int

    @property
    def total(self) -> float:
        """Log-probability of the whole text."""
        return sum(token.logprob for token in self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerank:
    """A request to order ``documents`` by how well they answer ``query``."""

    model: str
    query: str
    documents: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """``scores[i]`` belongs to document ``i`` (cosine similarity or a cross-encoder's score: higher is better)."""

    model: str
    scores: tuple[float, ...]
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Classify:
    """A request for the probability of each label as the continuation of ``prompt``."""

    model: str
    prompt: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """``probabilities[i]`` belongs to label ``i``; they sum to 1."""

    model: str
    probabilities: tuple[float, ...]
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenize:
    """A request for the token ids of a text, or of messages under the model's chat template."""

    model: str
    text: str | None = None
    messages: tuple[Message, ...] | None = None
    continue_final: bool = False
    """The last (assistant) message is to be continued: it stays open."""
    special: bool = False
    """Text only: with the tokens that the model puts around a prompt, and reading those that are written out in it."""
    pieces: bool = False
    """Also the text of each token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Token ids, and the most the model's context holds (tokens)."""

    model: str
    ids: tuple[int, ...]
    context: int | None = None
    pieces: tuple[str, ...] | None = None
    """The text of each token if asked for; one that is part of a character shows as U+FFFD."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detokenize:
    """A request for the text of token ids."""

    model: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """The text of token ids; bytes that make no character show as U+FFFD."""

    model: str
    text: str
