"""The engine contract: what a kind of engine promises, and how a running one is spoken to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pagoda.core.types import Embed, Embeddings, Event, Generation, Score, Scores, Tokenize, Tokens
from pagoda.model.catalog.entry import ModelEntry


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
    logit_bias: bool = True
    unenforced_keywords: frozenset[str] = frozenset()
    """JSON Schema keywords that pass through constrained output unenforced; answers are validated afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What an engine needs, in bytes."""

    weights: int
    kv_cache: int
    overhead: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.overhead


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What an engine may use of this machine, and for how long it may be silent."""

    threads: int
    parallel: int
    context: int
    """Context of one request, tokens; 0 means the kind's choice for the model."""
    spin: int = 1000
    """Rounds an idle thread spins before it sleeps."""
    silence_seconds: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """How to start an engine process: its command, its environment, and the JSON it reads first on standard input.

    The process binds a free loopback port, prints one JSON line ``{"url": ...}`` (or ``{"error": ...}``) when it is
    ready, answers only requests that carry ``key``, and ends when its standard input closes.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Health:
    """A running engine's own word on itself; ``progress`` counts its work (tokens or iterations) and only grows."""

    alive: bool
    running: int
    waiting: int
    progress: int


class Engine(Protocol):
    """A running engine, spoken to. Closing the iterator or cancelling the task frees the engine at once."""

    model: ModelEntry
    profile: Profile
    context: int | None

    def generate(self, request: Generation) -> AsyncIterator[Event]:
        """Text, as it is produced."""
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

    async def health(self) -> Health:
        """The engine's own word, without generating anything. Raises ``Unavailable`` when it does not answer."""
        ...

    async def close(self) -> None:
        """Close the connections (not the process)."""
        ...


class EngineKind(Protocol):
    """A kind of engine."""

    name: str
    runs: Literal["process", "remote"]

    def memory(self, model: ModelEntry, path: Path | None, room: Room) -> Memory:
        """What the model will need. Raises ``Unavailable`` when its file cannot be read."""
        ...

    def plan(self, model: ModelEntry, path: Path | None, room: Room, key: str) -> LaunchPlan:
        """How to start a process for the model at ``path`` that answers only ``key``."""
        ...

    async def connect(self, model: ModelEntry, url: str, key: str, room: Room) -> Engine:
        """Speak to a started engine."""
        ...
