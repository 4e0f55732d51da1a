"""How good scores are, and how they are made to mean what they say: in NumPy, for any scores with labels.

Discrimination: the area under the ROC curve with the interval of DeLong, DeLong and Clarke-Pearson (1988). Calibration:
the expected calibration error over ten bins of equal width (Naeini, Cooper and Hauskrecht, 2015). Fitting: logistic
regression by Newton's method with an L2 penalty, of which Platt's scaling is the one with one feature (Platt, 1999).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagoda.core.errors import InvalidRequest
from pagoda.logic.evaluation.statistics import Interval, z_of

Values = NDArray[np.float64]
Labels = NDArray[np.bool_]

BINS = 10
_STEPS = 50
_ENOUGH = 1e-10


@dataclass(frozen=True, slots=True)
class Bin:
    """The scores of a bin: how many, their mean, and the share of them that is right."""

    low: float
    high: float
    count: int
    mean: float
    right: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Logistic:
    """A logistic regression on standardised features: ``names`` with the weight of each, and a bias."""

    names: tuple[str, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    def logit(self, features: Mapping[str, float]) -> float:
        """The log-odds of right; a feature that is missing raises ``KeyError``."""
        parts = zip(self.names, self.center, self.scale, self.weights, strict=True)
        return self.bias + sum(weight * (features[name] - center) / scale for name, center, scale, weight in parts)

    def probability(self, features: Mapping[str, float]) -> float:
        """How likely it is right, 0 to 1."""
        return sigmoid(self.logit(features))

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "names": list(self.names),
            "center": [round(value, 6) for value in self.center],
            "scale": [round(value, 6) for value in self.scale],
            "weights": [round(value, 6) for value in self.weights],
            "bias": round(self.bias, 6),
        }


def logistic_from(kept: Mapping[str, Any]) -> Logistic:
    """A regression as it was kept."""
    return Logistic(
        names=tuple(kept["names"]),
        center=tuple(kept["center"]),
        scale=tuple(kept["scale"]),
        weights=tuple(kept["weights"]),
        bias=float(kept["bias"]),
    )


def sigmoid(value: float) -> float:
    """The logistic function."""
    return 1 / (1 + math.exp(-max(-500.0, min(500.0, value))))


def log_odds(chance: float) -> float:
    """The inverse of the logistic function, within -7 and 7: beyond that no chance was ever seen."""
    bounded = min(max(chance, 0.001), 0.999)
    return math.log(bounded / (1 - bounded))


def fit_logistic(
    names: Sequence[str],
    rows: Sequence[Mapping[str, float]],
    labels: Labels,
    l2: float = 1.0,
    shares: Values | None = None,
) -> Logistic:
    """The regression of labels on the named features; ``shares``: how much each row counts, 1 if not given.

    A feature that a row lacks stands at the mean of the rows that have it; the spread is that of these rows alone.
    Raises ``InvalidRequest`` unless both labels occur, and for a feature that no row has.
    """
    right = np.asarray(labels, dtype=np.bool_)
    if right.all() or not right.any():
        raise InvalidRequest("Fitting needs items of both labels.")
    given = np.array([[row.get(name, np.nan) for name in names] for row in rows], dtype=np.float64)
    if np.isnan(given).all(axis=0).any():
        raise InvalidRequest("Fitting needs a row that has each feature.")
    counts = np.ones(len(given)) if shares is None else np.asarray(shares, dtype=np.float64)
    center, scale = np.nanmean(given, axis=0), np.nanstd(given, axis=0)
    scale[scale < _ENOUGH] = 1.0
    table = np.hstack([np.nan_to_num((given - center) / scale), np.ones((len(given), 1))])
    penalty = np.diag([l2] * len(names) + [0.0])
    beta = np.zeros(table.shape[1])
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(table @ beta, -500, 500)))
        slope = table.T @ (counts * (chance - right)) + penalty @ beta
        bend = table.T @ (table * (counts * chance * (1 - chance))[:, None]) + penalty + _ENOUGH * np.eye(len(beta))
        step = np.linalg.solve(bend, slope)
        beta = beta - step
        if np.abs(step).max() < _ENOUGH:
            break
    return Logistic(
        names=tuple(names),
        center=tuple(center.tolist()),
        scale=tuple(scale.tolist()),
        weights=tuple(beta[:-1].tolist()),
        bias=float(beta[-1]),
    )


def reliability(scores: Values, labels: Labels, bins: int = BINS) -> list[Bin]:
    """The bins of equal width that hold any score: the reliability diagram."""
    found = []
    places = np.minimum((np.asarray(scores) * bins).astype(int), bins - 1)
    for at in range(bins):
        here = places == at
        if here.any():
            mean, right = float(scores[here].mean()), float(labels[here].mean())
            found.append(Bin(at / bins, (at + 1) / bins, int(here.sum()), mean, right))
    return found


def expected_calibration_error(scores: Values, labels: Labels, bins: int = BINS) -> float:
    """Mean distance between score and share of right ones over the bins, by their counts."""
    return sum(each.count * abs(each.mean - each.right) for each in reliability(scores, labels, bins)) / len(scores)


def auroc(scores: Values, labels: Labels, alpha: float = 0.05) -> Interval | None:
    """The chance that a right one scores above a wrong one, with DeLong's interval; ``None`` unless both occur."""
    right, wrong = scores[labels], scores[~labels]
    if not len(right) or not len(wrong):
        return None
    above = (right[:, None] > wrong[None, :]) + 0.5 * (right[:, None] == wrong[None, :])
    value = float(above.mean())
    spread = 0.0
    if len(right) > 1 and len(wrong) > 1:
        by_right, by_wrong = above.mean(axis=1).var(ddof=1), above.mean(axis=0).var(ddof=1)
        spread = math.sqrt(float(by_right) / len(right) + float(by_wrong) / len(wrong))
    half = z_of(alpha) * spread
    return Interval(value, max(0.0, value - half), min(1.0, value + half))
