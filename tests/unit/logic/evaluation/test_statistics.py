"""The statistics: against published values, against simulation, and for what must always hold."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pagoda.logic.evaluation.statistics import (
    holm,
    mcnemar,
    paired_means,
    paired_rates,
    ratio_of_means,
    wilson,
)


@settings(deadline=None)
@given(st.integers(1, 2000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    won, total = counts
    ours, theirs = wilson(won, total), stats.binomtest(won, total).proportion_ci(method="wilson")
    assert ours is not None
    assert [ours.low, ours.high] == pytest.approx([theirs.low, theirs.high], abs=1e-9)
    assert 0 <= ours.low <= ours.value <= ours.high <= 1


def test_nothing_seen_has_no_rate() -> None:
    assert wilson(0, 0) is None


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_test(won: int, lost: int) -> None:
    expected = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert mcnemar(won, lost) == pytest.approx(expected, rel=1e-6)


def test_newcombes_interval_is_the_published_one() -> None:
    """Newcombe (1998), table II, method 10, without continuity correction of phi: e=36 f=12 g=2 h=0 of 50."""
    first = [True] * 36 + [True] * 12 + [False] * 2
    second = [True] * 36 + [False] * 12 + [True] * 2
    found = paired_rates(first, second).interval
    assert found.value == pytest.approx(-0.2)
    assert [found.low, found.high] == pytest.approx([-0.3390, -0.0569], abs=0.012)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_a_difference_lies_in_its_interval_and_turns_its_sign(pairs: list[tuple[bool, bool]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = paired_rates(first, second), paired_rates(second, first)
    assert -1 <= there.interval.low <= there.interval.value + 1e-12
    assert there.interval.value <= there.interval.high + 1e-12 <= 1 + 1e-9
    assert back.interval.value == -there.interval.value
    assert back.p == pytest.approx(there.p)
    assert 0 < there.p <= 1


def test_false_alarms_stay_under_alpha() -> None:
    rng = np.random.default_rng(7)
    alarms = sum(paired_rates(*(rng.random((2, 60)) < 0.6).tolist()).p < 0.05 for _ in range(1500))
    assert alarms / 1500 <= 0.05 + 3 * (0.05 * 0.95 / 1500) ** 0.5


def test_the_cases_that_are_asked_for_are_enough() -> None:
    """Of comparisons with as many cases as were said to be needed, about 80 % see the difference."""
    rng = np.random.default_rng(3)
    first, second = rng.random(4000) < 0.60, rng.random(4000) < 0.70
    needed = paired_rates(first.tolist(), second.tolist()).needed
    assert needed is not None
    seen = sum(
        paired_rates((rng.random(needed) < 0.60).tolist(), (rng.random(needed) < 0.70).tolist()).p < 0.05
        for _ in range(400)
    )
    assert 0.65 < seen / 400 < 0.95


def test_equal_variants_need_no_number_of_cases() -> None:
    assert paired_rates([True, False], [True, False]).needed is None
    assert paired_rates([], []).needed is None


def test_means_of_repeats_are_paired_by_case() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(100)
    better = paired_means(hard, np.clip(hard + 0.1 + 0.05 * rng.standard_normal(100), 0, 1.2))
    assert better.p < 0.001
    assert better.interval.low < 0.1 < better.interval.high + 0.05
    same = paired_means(hard, hard)
    assert (same.p, same.interval.value, same.needed) == (1.0, 0.0, None)
    assert paired_means(np.array([]), np.array([])).cases == 0


def test_ratios_have_intervals_and_nothing_divides_by_zero() -> None:
    rng = np.random.default_rng(1)
    first = rng.random(200) + 1
    ratio = ratio_of_means(first, 2 * first)
    assert ratio is not None
    assert ratio.low == pytest.approx(2)
    assert ratio_of_means(np.zeros(3), np.ones(3)) is None
    assert ratio_of_means(np.array([]), np.array([])) is None


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_lowers_a_p_and_keeps_their_order(ps: list[float]) -> None:
    adjusted = holm(ps)
    assert all(p <= a <= 1 for p, a in zip(ps, adjusted, strict=True))
    order = sorted(range(len(ps)), key=lambda each: ps[each])
    assert all(adjusted[a] <= adjusted[b] for a, b in pairwise(order))
