"""One choice of one request as the engine computes it: its settings, what it has written, and where the tokens go."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import dataclass, field
from typing import Any

from pagoda.model.engines.transformers_child.constraint import Constraint

_NUMBERS = itertools.count()


@dataclass(frozen=True, slots=True)
class Rival:
    """A token that could have stood at a place, with its log-probability."""

    id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class Written:
    """A token as it was drawn, with the raw model's log-probabilities where they were asked for."""

    id: int
    logprob: float | None = None
    top: tuple[Rival, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """The job is over: ``stop``, ``length``, or an error in words."""

    reason: str
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How tokens are drawn; every value is given, none is a default of the library."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    top_logprobs: int | None = None

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.temperature <= 0

    @property
    def penalised(self) -> bool:
        """Whether what was written changes what comes."""
        return bool(self.frequency_penalty or self.presence_penalty or self.repetition_penalty != 1.0)


@dataclass(slots=True, eq=False)
class Job:
    """One choice. Owned by the event loop until submitted, then by the generation thread until it has ended."""

    prompt: list[int]
    limit: int
    """New tokens at most."""
    draw: Draw
    ends: frozenset[int]
    """Tokens that end an answer."""
    seed: str | None = None
    adapter: str = ""
    constraint: Constraint | None = None
    id: str = field(default_factory=lambda: f"job{next(_NUMBERS)}")
    written: list[int] = field(default_factory=list)
    cached: int = 0
    """Tokens of the prompt whose keys and values were there already."""
    events: asyncio.Queue[Written | Ended] = field(default_factory=asyncio.Queue)
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def __deepcopy__(self, memo: dict[int, Any]) -> Job:
        """Itself: the library copies a request's settings when it lets the request wait for memory."""
        return self
