"""The classifier of answers without sources, fitted on the even half of HaluEval general with scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from benchmarks.trust.sets import FOLDS, Item, fold, items
from pagoda.logic.trust.calibration import auroc
from pagoda.logic.trust.precedent import SIZE, Precedent, hashed

INVERSE_PENALTIES = (0.3, 1.0, 3.0)


def matrix(chosen: Sequence[Item]) -> csr_matrix:
    """Hashed words, a row an item."""
    rows = [hashed(item.question, item.answer) for item in chosen]
    lengths = [len(row) for row in rows]
    places = np.fromiter((place for row in rows for place in row), np.int64)
    values = np.fromiter((value for row in rows for value in row.values()), np.float64)
    return csr_matrix((values, places, np.concatenate(([0], np.cumsum(lengths)))), shape=(len(rows), SIZE))


@cache
def fitted(leave_out: int | None = None) -> Precedent:
    """The classifier on the even half, without a fold if one is left out."""
    chosen = [item for item in items("general") if item.even and fold(item.id) != leave_out]
    model = LogisticRegression(C=best_penalty(), max_iter=2000)
    model.fit(matrix(chosen), labels(chosen))
    return Precedent(tuple(model.coef_[0].tolist()), float(model.intercept_[0]))


@cache
def best_penalty() -> float:
    """The penalty that does best on folds of the even half."""
    even = [item for item in items("general") if item.even]
    table, right = matrix(even), labels(even)
    parts = np.array([fold(item.id) for item in even])
    found: dict[float, float] = {}
    for inverse in INVERSE_PENALTIES:
        said = np.zeros(len(even))
        for part in range(FOLDS):
            model = LogisticRegression(C=inverse, max_iter=2000).fit(table[parts != part], right[parts != part])
            said[parts == part] = model.decision_function(table[parts == part])
        area = auroc(said, right)
        found[inverse] = 0.0 if area is None else area.value
    return max(found, key=found.__getitem__)


def labels(chosen: Sequence[Item]) -> NDArray[np.bool_]:
    """Which are right."""
    return np.array([bool(item.label) for item in chosen])
