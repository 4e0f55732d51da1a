"""Agreement beyond chance, against worked examples from the papers, and calibration of judges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.logic.reviews.agreement import calibrate, cohen_kappa, interval, krippendorff_alpha

# Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), example C: four observers, twelve units, gaps.
OBSERVED = [
    [1, 1, 1],
    [2, 2, 3, 2],
    [3, 3, 3, 3],
    [3, 3, 3, 3],
    [2, 2, 2, 2],
    [1, 2, 3, 4],
    [4, 4, 4, 4],
    [1, 1, 2, 1],
    [2, 2, 2, 2],
    [5, 5, 5],
    [1, 1],
    [3],
]

labels = st.sampled_from("abc")


def test_kappa_of_a_worked_example() -> None:
    # 50 items: both yes 20, yes/no 5, no/yes 10, both no 15: observed 0.7, by chance 0.5.
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    assert cohen_kappa(pairs) == pytest.approx(0.4)


def test_alpha_of_the_papers_example_with_gaps() -> None:
    assert krippendorff_alpha(OBSERVED) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(OBSERVED, interval) == pytest.approx(0.849, abs=5e-4)


def test_alpha_of_the_papers_example_of_two_observers() -> None:
    # The same paper, example A: two observers, ten units, two values.
    left, right = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert krippendorff_alpha(list(zip(left, right, strict=True))) == pytest.approx(0.095, abs=5e-4)


def test_where_chance_leaves_no_room_nothing_is_claimed() -> None:
    assert cohen_kappa([]) is None
    assert cohen_kappa([("a", "a")] * 5) is None
    assert krippendorff_alpha([["a"], ["b"]]) is None
    assert krippendorff_alpha([["a", "a"]] * 3) is None


@given(st.lists(st.lists(labels, min_size=2, max_size=4), min_size=1, max_size=12))
def test_full_agreement_is_one_and_nothing_is_more(items: list[list[str]]) -> None:
    alpha = krippendorff_alpha(items)
    assert alpha is None or alpha <= 1 + 1e-12
    same = krippendorff_alpha([[item[0]] * len(item) for item in items])
    assert same is None or same == pytest.approx(1)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_a_calibration_never_falls_and_keeps_the_mean(judged: list[tuple[float, bool]]) -> None:
    found = calibrate(judged)
    assert found is not None
    assert list(found.rates) == sorted(found.rates)
    assert sum(found(score) for score, _ in judged) == pytest.approx(sum(good for _, good in judged))


def test_a_calibration_tells_what_a_score_is_worth() -> None:
    found = calibrate([(0.2, False), (0.4, False), (0.9, True), (0.6, True), (0.7, False), (0.95, True)])
    assert found is not None
    assert [found(score) for score in (0.1, 0.3, 0.65, 0.92)] == [0, 0, 0.5, 1]
    assert calibrate([]) is None
