"""The search for a better prompt: examples, their order and instructions, chosen on a training part, judged on another.

Optuna proposes (Akiba et al., 2019; the extra ``tune``), its sampler seeded, so that a search that was stopped proposes
the same again and finds what was asked already on the disk. The best of many candidates looks better than it is; the
held-out part, which the search never saw, says whether it is.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pagoda.core.errors import InvalidRequest
from pagoda.logic.evaluation.candidates import Candidate
from pagoda.logic.evaluation.report import Report
from pagoda.logic.evaluation.score import Case

Judge = Callable[[Candidate], Awaitable[float]]
"""Gives a candidate's success rate on the training part, 0 to 1."""

_LEAST = 4


@dataclass(frozen=True, slots=True)
class Parts:
    """A data set in three: examples to show, cases to search on, cases that only the end sees."""

    pool: tuple[Case, ...]
    training: tuple[Case, ...]
    held_out: tuple[Case, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What is searched."""

    instructions: int
    """How many besides the prompt's own."""
    pool: int
    """How many examples there are to choose from."""
    most_shots: int


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate and its rate on the training part."""

    candidate: Candidate
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Improvement:
    """How a search ended."""

    tried: tuple[Tried, ...]
    best: Candidate
    training: tuple[float, float]
    """Rate of the base and of the best on what was searched on; the latter is too good to be true."""
    held_out: Report
    """Base and best on what the search never saw."""

    @property
    def agrees(self) -> bool:
        """Whether the held-out part confirms, beyond chance, that the best is better."""
        return self.best != Candidate() and self.held_out.winner == 1


def split(cases: Sequence[Case], pool: int, seed: int) -> Parts:
    """Three parts drawn by the seed: ``pool`` examples, then half of the rest each. Raises ``InvalidRequest``."""
    mixed = list(cases)
    random.Random(seed).shuffle(mixed)
    pool = min(pool, len(mixed) // 3)
    rest = mixed[pool:]
    middle = (len(rest) + 1) // 2
    if middle < _LEAST:
        raise InvalidRequest(f"{len(cases)} cases are too few to search on one part and judge on another; give more.")
    return Parts(tuple(mixed[:pool]), tuple(rest[:middle]), tuple(rest[middle:]))


async def search(space: Space, judge: Judge, trials: int, seed: int) -> tuple[Tried, ...]:
    """As many candidates as asked for, the base first, in the order in which they were tried; equal ones once."""
    optuna = _optuna()
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial({"shots": 0} | ({"instruction": 0} if space.instructions else {}))
    tried: dict[Candidate, float] = {}
    for _ in range(trials):
        trial = study.ask()
        candidate = _proposed(trial, space)
        if candidate not in tried:
            tried[candidate] = await judge(candidate)
        study.tell(trial, tried[candidate])
    return tuple(Tried(candidate, rate) for candidate, rate in tried.items())


def best_of(tried: Sequence[Tried]) -> Tried:
    """The best; of equally good ones the first, which is the base where nothing is better."""
    return max(tried, key=lambda each: each.rate)


def _proposed(trial: Any, space: Space) -> Candidate:
    chosen = trial.suggest_int("instruction", 0, space.instructions) if space.instructions else 0
    shots = trial.suggest_int("shots", 0, min(space.most_shots, space.pool))
    slots = [trial.suggest_int(f"example-{place}", 0, space.pool - 1) for place in range(shots)]
    return Candidate(chosen - 1 if chosen else None, tuple(dict.fromkeys(slots)))


def _optuna() -> Any:
    try:
        import optuna  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise InvalidRequest("The search needs optuna: python -m pip install 'pagoda-llm[tune]'.") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
