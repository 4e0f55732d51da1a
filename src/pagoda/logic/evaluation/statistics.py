"""The statistics of comparisons, in NumPy and the standard library: intervals, paired tests, cases still needed.

Rates are of successes. Pairs are the same cases under two variants, so that hard and easy cases cancel out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
_RESAMPLES = 10_000
_MOST_CASES = 1_000_000
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the bounds between which it lies with the stated confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Of two variants over the same cases, the second minus the first."""

    interval: Interval
    p: float
    test: str
    cases: int
    needed: int | None
    """How many cases in all it would take to tell a difference of this size apart from none; ``None``: a million and
    more, or there is no difference to be seen."""


def z_of(alpha: float) -> float:
    """The two-sided quantile of the normal distribution."""
    return NormalDist().inv_cdf(1 - alpha / 2)


def wilson(successes: float, total: int, alpha: float = 0.05) -> Interval | None:
    """The score interval of a rate (Wilson, 1927); ``None`` where nothing was seen."""
    if total == 0:
        return None
    z, p = z_of(alpha), successes / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return Interval(p, min(p, max(0.0, middle - half)), max(p, min(1.0, middle + half)))


def mcnemar(won: int, lost: int) -> float:
    """Two-sided exact p of as uneven a split of the cases in which two variants differ (McNemar, 1947)."""
    total, few = won + lost, min(won, lost)
    if total == 0:
        return 1.0
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(few + 1)
    ]
    return min(1.0, 2 * math.exp(max(logs)) * sum(math.exp(each - max(logs)) for each in logs))


def paired_rates(first: Sequence[bool], second: Sequence[bool], alpha: float = 0.05, power: float = 0.8) -> Difference:
    """Two variants whose cases each succeed or not: exact McNemar test, Newcombe's interval (1998, method 10)."""
    total = len(first)
    both = sum(a and b for a, b in zip(first, second, strict=True))
    lost = sum(a and not b for a, b in zip(first, second, strict=True))
    won = sum(b and not a for a, b in zip(first, second, strict=True))
    return Difference(
        interval=_newcombe(both, lost, won, total, alpha),
        p=mcnemar(won, lost),
        test="exact McNemar",
        cases=total,
        needed=_needed_pairs(lost / total, won / total, alpha, power) if total else None,
    )


def paired_means(first: Values, second: Values, alpha: float = 0.05, power: float = 0.8, seed: int = 0) -> Difference:
    """Two variants with a number a case: sign-flip test and bootstrap interval of the mean difference."""
    off = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    total = len(off)
    if total == 0:
        return Difference(interval=Interval(0.0, 0.0, 0.0), p=1.0, test="sign flips", cases=0, needed=None)
    mean = float(off.mean())
    rng = np.random.default_rng(seed)
    means, extreme = [], 0
    for _ in range(0, _RESAMPLES, _CHUNK):
        means.append(off[rng.integers(0, total, (_CHUNK, total))].mean(axis=1))
        flipped = (off * rng.choice((-1.0, 1.0), (_CHUNK, total))).mean(axis=1)
        extreme += int((np.abs(flipped) >= abs(mean) - 1e-12).sum())
    low, high = np.quantile(np.concatenate(means), (alpha / 2, 1 - alpha / 2))
    deviation = float(off.std(ddof=1)) if total > 1 else 0.0
    needed = None
    if mean and deviation:
        needed = _bounded(((z_of(alpha) + NormalDist().inv_cdf(power)) * deviation / mean) ** 2)
    return Difference(
        interval=Interval(mean, float(low), float(high)),
        p=(extreme + 1) / (_RESAMPLES + 1),
        test="sign flips",
        cases=total,
        needed=needed,
    )


def ratio_of_means(first: Values, second: Values, alpha: float = 0.05, seed: int = 0) -> Interval | None:
    """How many times the first's mean the second's is, with a bootstrap interval over cases; ``None`` without any."""
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(first) == 0 or first.mean() <= 0:
        return None
    rng = np.random.default_rng(seed)
    ratios = []
    for _ in range(0, _RESAMPLES, _CHUNK):
        rows = rng.integers(0, len(first), (_CHUNK, len(first)))
        below = first[rows].mean(axis=1)
        ratios.append(np.divide(second[rows].mean(axis=1), below, out=np.full(_CHUNK, np.inf), where=below > 0))
    low, high = np.quantile(np.concatenate(ratios), (alpha / 2, 1 - alpha / 2))
    return Interval(float(second.mean() / first.mean()), float(low), float(high))


def holm(ps: Sequence[float]) -> list[float]:
    """p values adjusted for being several (Holm, 1979), in the same order."""
    adjusted = [1.0] * len(ps)
    worst = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda each: ps[each])):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = worst
    return adjusted


def _newcombe(both: int, lost: int, won: int, total: int, alpha: float) -> Interval:
    one, two = wilson(both + lost, total, alpha), wilson(both + won, total, alpha)
    if one is None or two is None:
        return Interval(0.0, -1.0, 1.0)
    neither = total - both - lost - won
    spread = math.sqrt((both + lost) * (won + neither) * (both + won) * (lost + neither))
    phi = (both * neither - lost * won) / spread if spread else 0.0
    off = two.value - one.value
    down = (two.value - two.low) ** 2 - 2 * phi * (two.value - two.low) * (one.high - one.value)
    up = (two.high - two.value) ** 2 - 2 * phi * (two.high - two.value) * (one.value - one.low)
    low = off - math.sqrt(max(0.0, down + (one.high - one.value) ** 2))
    high = off + math.sqrt(max(0.0, up + (one.value - one.low) ** 2))
    return Interval(off, max(-1.0, low), min(1.0, high))


def _needed_pairs(lost: float, won: float, alpha: float, power: float) -> int | None:
    """Cases for McNemar's test to see the difference that was observed (Connor, 1987)."""
    off, unlike = won - lost, won + lost
    if off == 0:
        return None
    by_chance, by_off = z_of(alpha) * math.sqrt(unlike), NormalDist().inv_cdf(power) * math.sqrt(unlike - off * off)
    return _bounded(((by_chance + by_off) / off) ** 2)


def _bounded(cases: float) -> int | None:
    return math.ceil(cases) if cases <= _MOST_CASES else None
