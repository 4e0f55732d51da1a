"""Scores measured and calibrated: against scikit-learn's and hand-made figures, and by invariants."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.errors import InvalidRequest
from pagoda.logic.trust.calibration import (
    auroc,
    expected_calibration_error,
    fit_logistic,
    log_odds,
    logistic_from,
    reliability,
    sigmoid,
)

SCORES = np.array([0.1, 0.4, 0.35, 0.8])
LABELS = np.array([False, False, True, True])


def test_the_area_under_the_curve_and_its_interval() -> None:
    found = auroc(SCORES, LABELS)
    assert found is not None
    assert found.value == 0.75
    assert 0 <= found.low < 0.75 < found.high <= 1
    assert auroc(SCORES, np.array([True] * 4)) is None
    rng = np.random.default_rng(7)
    labels = rng.random(400) < 0.5
    scores = rng.normal(size=400) + labels
    wide, narrow = auroc(scores[:100], labels[:100]), auroc(scores, labels)
    assert wide is not None
    assert narrow is not None
    assert wide.high - wide.low > narrow.high - narrow.low
    assert narrow.low < 0.76 < narrow.high, "of two normal distributions one deviation apart"


def test_the_calibration_error_is_that_of_ten_bins() -> None:
    scores, labels = np.array([0.05, 0.15, 0.15, 0.95, 1.0]), np.array([False, True, False, True, True])
    assert [(each.low, each.count, each.right) for each in reliability(scores, labels)] == [
        (0.0, 1, 0.0),
        (0.1, 2, 0.5),
        (0.9, 2, 1.0),
    ]
    assert expected_calibration_error(scores, labels) == pytest.approx((0.05 + 2 * 0.35 + 2 * 0.025) / 5)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_the_calibration_error_is_a_share(pairs: list[tuple[float, bool]]) -> None:
    scores, labels = np.array([score for score, _ in pairs]), np.array([label for _, label in pairs])
    assert 0 <= expected_calibration_error(scores, labels) <= 1


def test_a_regression_finds_what_made_the_labels_and_is_kept() -> None:
    rng = np.random.default_rng(3)
    rows = [{"a": float(a), "b": float(b), "flat": 1.0} for a, b in rng.normal(size=(3000, 2))]
    labels = np.array([rng.random() < sigmoid(2 * row["a"] - row["b"] + 0.5) for row in rows])
    fitted = fit_logistic(("a", "b", "flat"), rows, labels, 0.01)
    slopes = [weight / scale for weight, scale in zip(fitted.weights, fitted.scale, strict=True)]
    assert slopes[0] == pytest.approx(2, abs=0.25)
    assert slopes[1] == pytest.approx(-1, abs=0.2)
    again = logistic_from(fitted.to_json())
    assert again.probability(rows[0]) == pytest.approx(fitted.probability(rows[0]), abs=1e-4)
    with pytest.raises(KeyError):
        again.probability({"a": 1.0})
    with pytest.raises(InvalidRequest, match="both labels"):
        fit_logistic(("a",), rows[:3], np.array([True] * 3))


def test_rows_that_lack_a_feature_teach_nothing_of_it() -> None:
    rng = np.random.default_rng(5)
    known = [{"a": float(a)} for a in rng.normal(3, 2, size=200)]
    labels = np.array([rng.random() < sigmoid(row["a"] - 3) for row in known])
    both = np.concatenate([labels, [True, False] * 400])
    fitted, alone = fit_logistic(("a",), [*known, *[{}] * 800], both), fit_logistic(("a",), known, labels)
    assert (fitted.center, fitted.scale) == (alone.center, alone.scale)
    assert fitted.weights[0] == pytest.approx(alone.weights[0], rel=0.05)
    with pytest.raises(InvalidRequest, match="each feature"):
        fit_logistic(("a", "b"), known, labels)


@given(st.floats(0, 1))
def test_odds_and_chances_belong_together(chance: float) -> None:
    assert sigmoid(log_odds(chance)) == pytest.approx(min(max(chance, 0.001), 0.999))
