"""How many outcomes an experiment takes: for a test at one fixed time, and for one that may be looked at any time.

The second is simulated with sums of bets taken for normal, always with the same random numbers: the same question has
the same answer. ``benchmarks/experiments.py`` holds it beside experiments with real outcomes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from pagoda.core.errors import InvalidRequest
from pagoda.logic.experiments.betting import Floats, stakes

_NORMAL = NormalDist()
_SEED = 5
_WALKS = 1000
_LOOKS = 300
_LEAST = 1e-6
_LONGEST = 16  # times the fixed sample: all but a hair of the walks are decided by then


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be told apart, and how surely."""

    baseline: float
    """The control's mean, in (0, 1)."""
    effect: float
    """Smallest difference worth knowing."""
    alpha: float = 0.05
    power: float = 0.8
    deviation: float | None = None
    """Standard deviation of one outcome; ``None``: of yes and no at ``baseline``."""
    share: float = 0.5
    """Of the treatment, among the two."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Outcomes of both variants together."""

    fixed: int
    """For one look at the end."""
    typical: int
    """By which half of all experiments with this effect are decided, looked at all the time."""
    enough: int
    """By which ``power`` of them are."""


def plan(question: Question) -> Plan:
    """The sample sizes of a question. Raises ``InvalidRequest`` for one without an answer."""
    _check(question)
    share, effect = question.share, abs(question.effect)
    weight = share * (1 - share)
    control = _variance(question, question.baseline)
    treated = _variance(question, question.baseline + question.effect)
    # Of (z - p)(y - m) with m near both means: each arm's variance, weighed by the other's share.
    spread = weight * ((1 - share) * treated + share * control)
    sure = _NORMAL.inv_cdf(1 - question.alpha / 2) + _NORMAL.inv_cdf(question.power)
    fixed = (sure / effect) ** 2 * (treated / share + control / (1 - share))
    times = np.geomspace(max(1.0, fixed / 100), fixed * _LONGEST, _LOOKS)
    first = _decided(times, weight * effect, spread, question.alpha, stakes(effect, question.baseline))
    typical, enough = np.quantile(first, [0.5, question.power], method="higher")
    return Plan(math.ceil(fixed), math.ceil(typical), math.ceil(enough))


def _decided(times: Floats, drift: float, spread: float, alpha: float, given: Floats) -> Floats:
    """The times at which walks of that drift and variance an outcome first make the gamblers rich enough."""
    steps = np.diff(times, prepend=0.0)
    chance = np.random.default_rng(_SEED).standard_normal((_WALKS, len(times)))
    walks = np.cumsum(drift * steps + np.sqrt(spread * steps) * chance, axis=1)
    held = np.mean([np.exp(stake * walks - stake**2 * spread * times / 2) for stake in given], axis=0)
    rich = held >= 2 / alpha
    first: Floats = np.where(rich.any(axis=1), times[rich.argmax(axis=1)], times[-1])
    return first


def _variance(question: Question, mean: float) -> float:
    return mean * (1 - mean) if question.deviation is None else question.deviation**2


def _check(question: Question) -> None:
    if not _LEAST <= question.baseline <= 1 - _LEAST:
        raise InvalidRequest("The baseline must lie between 0 and 1, for example 0.3.", param="baseline")
    if abs(question.effect) < _LEAST or not _LEAST <= question.baseline + question.effect <= 1 - _LEAST:
        raise InvalidRequest(
            "The effect must not be 0, and baseline + effect must lie between 0 and 1.", param="effect"
        )
    if not _LEAST <= question.alpha <= 0.5:
        raise InvalidRequest("Alpha must lie between 0 and 0.5, for example 0.05.", param="alpha")
    if not 0.5 <= question.power <= 1 - _LEAST:
        raise InvalidRequest("Power must be at least 0.5 and below 1, for example 0.8.", param="power")
    if not 0.001 <= question.share <= 0.999:
        raise InvalidRequest("The treatment's share must lie between 0.001 and 0.999.", param="share")
    if question.deviation is not None and not 0.001 <= question.deviation <= 0.5:
        raise InvalidRequest("A deviation of outcomes in [0, 1] lies between 0.001 and 0.5.", param="deviation")
