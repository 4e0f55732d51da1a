"""What outcomes say about the difference of two variants, at any time and however often one looks.

A unit ``i`` gets the treatment with a known probability ``p_i``; its outcome ``y_i`` lies in [0, 1]. With ``m_i`` the
mean of the outcomes before it, ``d_i = (z_i - p_i) (y_i - m_i)`` has the conditional mean ``h_i * difference``, where
``h_i = p_i (1 - p_i)``: the draw alone says so, whatever the outcomes' distribution, and also where shares were changed
on the way. Against each possible difference a gambler bets on ``x_i = d_i - h_i * difference``, which never leaves
[-1, 1]; the mean wealth of gamblers with several stakes is a martingale where that difference is true, so it exceeds
``1 / alpha`` at any time at all with a probability of at most ``alpha`` (Ville 1939). The differences against which
nobody has become that rich are a confidence sequence: exact at every number of outcomes, not only for many.

After Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting" (JRSS B 86, 2024), and
Waudby-Smith, Wu, Ramdas, Karampatziakis & Mineiro, "Anytime-valid off-policy inference for contextual bandits" (2024).

Not here: which outcomes count (``verdict``), and how many it takes (``plan``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STAKES = 10
_BOLDEST = 0.9
_SHYEST = 0.01
_STEPS = 20  # halvings of the range: the bounds are right to 0.000002
_LARGEST = 500.0


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Outcomes of control and treatment in the order in which they came: three arrays of one length."""

    treated: Floats
    """1 for the treatment, 0 for the control."""
    share: Floats
    """Probability of the treatment, among the two, when the unit was drawn; strictly between 0 and 1."""
    value: Floats
    """In [0, 1]."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of ``treatment - control``, simultaneously for all times with probability ``1 - alpha``."""

    low: float
    high: float
    estimate: float
    """The difference itself, weighted as the bets are."""
    e_value: float
    """The most that was ever won against "no difference", on the better side; ``1 / e_value`` is a p-value."""
    decided_at: int | None
    """The number of outcomes at which "no difference" was first refused."""
    drifts: bool
    """No single difference fits all times, so that the interval is that of the last moment alone."""


def stakes(effect: float | None = None, baseline: float = 0.5) -> Floats:
    """What is bet, as a share of wealth: around what is best for ``effect``, or over the whole range.

    Any stakes are valid; those near the best one find the effect soonest.
    """
    if effect is None:
        return np.geomspace(_SHYEST, _BOLDEST, STAKES)
    best = min(0.75, max(1e-6, abs(effect) / max(baseline * (1 - baseline), 1e-3)))
    return np.geomspace(best / 4, min(_BOLDEST, best * 3), STAKES)


def weigh(outcomes: Outcomes) -> tuple[Floats, Floats]:
    """Each outcome's ``d`` and ``h``. The mean before the first outcome is taken for 1/2."""
    count = len(outcomes.value)
    before = np.concatenate(([0.0], np.cumsum(outcomes.value)[:-1])) if count else np.zeros(0)
    mean = (before + 0.5) / (np.arange(count) + 1)
    return (outcomes.treated - outcomes.share) * (outcomes.value - mean), outcomes.share * (1 - outcomes.share)


def wealth(bets: Floats, given: Floats) -> Floats:
    """Logarithm of the gamblers' mean wealth after each of ``bets`` (in [-1, 1]), each staking one of ``given``."""
    if not len(bets):
        return np.zeros(1)
    paths = np.cumsum(np.log1p(given[:, None] * bets[None, :]), axis=1)
    top = paths.max(axis=0)
    held: Floats = top + np.log(np.exp(paths - top).mean(axis=0))
    return held


def weigh_up(outcomes: Outcomes, alpha: float, given: Floats) -> Evidence:
    """What these outcomes say; each side is given half of ``alpha``."""
    weighted, weight = weigh(outcomes)
    bar = math.log(2 / alpha)
    total = float(weight.sum())
    low, high = _interval(weighted, weight, bar, given, ever=True)
    if drifts := low > high:
        low, high = _interval(weighted, weight, bar, given, ever=False)
    sides = (wealth(weighted, given), wealth(-weighted, given))
    reached = [int(np.argmax(side >= bar)) + 1 for side in sides if side.max() >= bar]
    return Evidence(
        low=low,
        high=high,
        estimate=float(weighted.sum()) / total if total else 0.0,
        e_value=math.exp(min(max(float(side.max()) for side in sides), _LARGEST)) / 2,
        decided_at=min(reached) if reached else None,
        drifts=drifts,
    )


def _interval(weighted: Floats, weight: Floats, bar: float, given: Floats, *, ever: bool) -> tuple[float, float]:
    """The differences that were not refused at any time (``ever``), or are not refused now."""

    def refused(difference: float, sign: float) -> bool:
        held = wealth(sign * (weighted - weight * difference), given)
        return bool((held.max() if ever else held[-1]) >= bar)

    return (
        _last(lambda difference: refused(difference, 1.0), -1.0, 1.0),
        _last(lambda difference: refused(difference, -1.0), 1.0, -1.0),
    )


def _last(refused: Callable[[float], bool], start: float, end: float) -> float:
    """The furthest difference from ``start`` on that is refused; every step costs the bets, so it is monotone."""
    if not refused(start):
        return start
    inside, outside = start, end
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if refused(middle) else (inside, middle)
    return inside
