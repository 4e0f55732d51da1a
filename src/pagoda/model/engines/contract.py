"""The engine contract: what a kind of engine promises, and how a running one is spoken to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from pagoda.core.types import Detokenize, Embed, Embeddings, Event, Generation, Score, Scores, Text, Tokenize, Tokens
from pagoda.model.catalog.disk import spell_bytes
from pagoda.model.catalog.entry import ModelEntry

KvType: TypeAlias = Literal["f16", "q8_0"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a running engine can do. What it lacks is filled by the logic storey or refused, never ignored."""

    generate: bool = True
    embed: bool = False
    choices: int = 128
    """Most choices (``n``) of one request."""
    json_schema: bool = True
    top_logprobs: int = 20
    """Most alternatives a token's log-probability can come with."""
    score: bool = True
    tokenize: bool = True
    continue_final: bool = True
    token_frames: bool = False
    """Whether a stream brings each token alone, so that its pieces tell how the text was split as it was drawn."""
    logit_bias: bool = True
    tool_calls: bool = False
    """Whether it takes tools and gives calls; where it does not, the logic storey asks for them in JSON."""
    adapters: bool = False
    """Whether adapters of the model can be loaded while it runs (``adopt``)."""
    unenforced_keywords: frozenset[str] = frozenset()
    """JSON Schema keywords that pass through constrained output unenforced; answers are validated afterwards."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes in each pool of memory that a machine has: its own, and that of all its GPUs together."""

    host: int = 0
    gpu: int = 0

    def __add__(self, other: Footprint) -> Footprint:
        return Footprint(self.host + other.host, self.gpu + other.gpu)

    def __sub__(self, other: Footprint) -> Footprint:
        return Footprint(self.host - other.host, self.gpu - other.gpu)

    def within(self, budget: Footprint) -> bool:
        """Whether no pool of ``budget`` is passed."""
        return self.host <= budget.host and self.gpu <= budget.gpu

    def at_least(self, other: Footprint) -> Footprint:
        """The larger of both, pool by pool."""
        return Footprint(max(self.host, other.host), max(self.gpu, other.gpu))

    def relieved_by(self, part: Footprint, budget: Footprint) -> bool:
        """Whether a pool that passes ``budget`` shrinks when ``part`` goes."""
        return (self.host > budget.host and part.host > 0) or (self.gpu > budget.gpu and part.gpu > 0)

    def __str__(self) -> str:
        if not self.gpu:
            return spell_bytes(self.host)
        return f"{spell_bytes(self.host)} and {spell_bytes(self.gpu)} of GPU memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What an engine needs, in bytes. On a GPU weights and KV cache lie there, the overhead on the host."""

    weights: int
    kv_cache: int
    overhead: int
    on_gpu: bool = False
    asleep: Footprint | None = None
    """What it keeps while it sleeps; ``None`` for an engine that does not (``Sleeps``)."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.overhead

    @property
    def footprint(self) -> Footprint:
        """The same, pool by pool."""
        if self.on_gpu:
            return Footprint(host=self.overhead, gpu=self.weights + self.kv_cache)
        return Footprint(host=self.total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What an engine may use of this machine, and for how long it may be silent."""

    threads: int
    parallel: int
    """Requests computed at once; 0 means the kind's choice (``fitted``)."""
    context: int
    """Context of one request, tokens; 0 means the kind's choice for the model."""
    kv_type: KvType = "f16"
    """How a number of the KV cache is stored."""
    gpu_memory: int = 0
    """Bytes of GPU memory that all engines together may fill."""
    spin: int = 1000
    """Rounds an idle thread spins before it sleeps."""
    silence_seconds: float = 600.0
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``, for engines that can choose."""
    dtype: str = "auto"
    """``auto``, ``float32``, ``float16`` or ``bfloat16``, for engines that can choose."""
    vllm_arguments: tuple[str, ...] = ()
    """Further arguments of vLLM's server, as the operator gave them."""
    vllm_sleep: bool = False
    """Whether vLLM may be put to sleep when another model needs its GPU memory."""

    def __hash__(self) -> int:
        """By the fields that differ most: every request looks things up by its room."""
        return hash((self.threads, self.parallel, self.context))


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """How to start an engine process: its command, its environment, and the JSON it reads first on standard input.

    The process binds a free loopback port, prints one JSON line ``{"url": ...}`` (or ``{"error": ...}``) when it is
    ready, answers only requests that carry ``key``, and ends when its standard input closes.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    stop_seconds: float = 2.0
    """How long the process may take to end once its standard input is closed."""


@dataclass(frozen=True, slots=True)
class Health:
    """A running engine's own word on itself; ``progress`` counts its work (tokens or iterations) and only grows."""

    alive: bool
    running: int
    waiting: int
    progress: int
    counted: bool = True
    """Whether it tells of its work; an address that does not says nothing by ``running`` and ``progress``."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a running engine tells of its load; ``None`` where it does not tell."""

    running: int
    waiting: int
    kv_used: float | None = None
    """Share of the KV cache that requests under way fill, 0 to 1."""


class Engine(Protocol):
    """A running engine, spoken to. Closing the iterator or cancelling the task frees the engine at once."""

    model: ModelEntry
    profile: Profile
    context: int | None

    def generate(self, request: Generation, drawn: Drawn | None = None) -> AsyncIterator[Event]:
        """Text, as it is produced. ``drawn`` hears each piece as it comes, also while a stop sequence may be beginning
        and the piece is held back."""
        ...

    async def embed(self, request: Embed) -> Embeddings:
        """Vectors of unit L2 norm."""
        ...

    async def score(self, request: Score) -> Scores:
        """Log-probabilities of given text."""
        ...

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Token ids."""
        ...

    async def adopt(self, adapter: ModelEntry) -> None:
        """Load an adapter of this model unless it is; requests that name it are then answered with it."""
        ...

    async def detokenize(self, request: Detokenize) -> Text:
        """The text of token ids."""
        ...

    async def health(self) -> Health:
        """The engine's own word, without generating anything. Raises ``Unavailable`` when it does not answer."""
        ...

    async def vitals(self) -> Vitals | None:
        """Its load, for metrics; ``None`` where it tells nothing of it. Raises ``ModelError``."""
        ...

    async def close(self) -> None:
        """Close the connections (not the process)."""
        ...


Drawn: TypeAlias = Callable[[str], None]
"""Hears the pieces of an answer as an engine draws them."""


class EngineKind(Protocol):
    """A kind of engine. The rooms that it is given name a number of requests (``fitted``)."""

    name: str
    runs: Literal["process", "remote"]
    parallel: int
    """Requests that an engine computes at once unless settings say otherwise."""

    def memory(self, model: ModelEntry, path: Path | None, room: Room) -> Memory:
        """What the model will need. Raises ``Unavailable`` when its file cannot be read."""
        ...

    def capacity(self, model: ModelEntry, room: Room) -> int:
        """Requests (choices, to be exact) that may be under way at once; further ones wait before the engine."""
        ...

    def plan(self, model: ModelEntry, path: Path | None, room: Room, key: str) -> LaunchPlan:
        """How to start a process for the model at ``path`` that answers only ``key``."""
        ...

    async def connect(self, model: ModelEntry, url: str, key: str, room: Room) -> Engine:
        """Speak to a started engine."""
        ...


@runtime_checkable
class Sleeps(Protocol):
    """An engine that can leave its GPU memory and come back to it while its process stays."""

    async def sleep(self) -> None:
        """Move the weights to the host's memory and forget the KV cache. Raises ``ModelError``."""
        ...

    async def wake(self) -> None:
        """Take both back. Raises ``ModelError``."""
        ...


@runtime_checkable
class TakesAdapters(Protocol):
    """A kind whose engines take adapters when they start, as files that are written for it."""

    def write_adapter(self, folder: Path, base: Path, target: Path) -> None:
        """Write the PEFT adapter in ``folder`` for the model at ``base``. Raises ``UserError`` if it does not fit."""
        ...


def fitted(room: Room, kind: EngineKind) -> Room:
    """The room with the kind's own number of requests where none was chosen."""
    return room if room.parallel else _with_parallel(room, kind.parallel)


@lru_cache(maxsize=64)
def _with_parallel(room: Room, parallel: int) -> Room:
    """Made once: every request asks how many its model takes."""
    return replace(room, parallel=parallel)
