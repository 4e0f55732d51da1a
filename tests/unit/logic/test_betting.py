"""Bets on differences: exact martingales, whatever the outcomes, and intervals that only shrink."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagoda.core.errors import InvalidRequest
from pagoda.logic.experiments.betting import STAKES, Outcomes, stakes, wealth, weigh, weigh_up
from pagoda.logic.experiments.plan import Question, plan

shares = st.floats(0.01, 0.99)
values = st.floats(0, 1)
drawn = st.lists(st.tuples(st.booleans(), shares, values), min_size=1, max_size=40)


def outcomes_of(rows: list[tuple[bool, float, float]]) -> Outcomes:
    treated, share, value = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    return Outcomes(treated, share, value)


def simulated(seed: int, count: int, baseline: float, effect: float) -> Outcomes:
    random = np.random.default_rng(seed)
    treated = (random.random(count) < 0.5).astype(float)
    return Outcomes(treated, np.full(count, 0.5), (random.random(count) < baseline + effect * treated).astype(float))


@given(drawn, st.floats(-1, 1))
def test_no_bet_can_lose_more_than_its_stake(rows: list[tuple[bool, float, float]], difference: float) -> None:
    weighted, weight = weigh(outcomes_of(rows))
    bets = weighted - weight * difference
    assert np.abs(bets).max() <= 1 + 1e-12
    assert np.isfinite(wealth(bets, stakes())).all()


@settings(max_examples=25)
@given(
    st.lists(st.tuples(shares, st.floats(0, 0.7)), min_size=1, max_size=7),
    st.floats(-0.3, 0.3),
    st.sampled_from((1, -1)),
)
def test_the_mean_wealth_over_all_assignments_is_one_where_the_difference_is_true(
    units: list[tuple[float, float]], effect: float, sign: int
) -> None:
    base = [max(level, -effect) if effect < 0 else level for _, level in units]
    expected = 0.0
    for assignment in itertools.product((0.0, 1.0), repeat=len(units)):
        chance = math.prod(share if one else 1 - share for one, (share, _) in zip(assignment, units, strict=True))
        rows = [
            (bool(one), share, level + effect * one)
            for one, (share, _), level in zip(assignment, units, base, strict=True)
        ]
        weighted, weight = weigh(outcomes_of(rows))
        expected += chance * math.exp(wealth(sign * (weighted - weight * effect), stakes(0.1))[-1])
    assert expected == pytest.approx(1, abs=1e-9)


def test_the_mean_wealth_stays_one_where_shares_follow_what_was_seen() -> None:
    levels, effect, expected = (0.9, 0.1, 0.5, 0.3, 0.7, 0.2), 0.25, 0.0
    for assignment in itertools.product((0.0, 1.0), repeat=len(levels)):
        rows: list[tuple[bool, float, float]] = []
        chance = 1.0
        for one, level in zip(assignment, levels, strict=True):
            good = [value for treated, _, value in rows if treated]
            share = 0.3 if not good else min(0.9, max(0.1, sum(good) / len(good)))  # more to what did well so far
            chance *= share if one else 1 - share
            rows.append((bool(one), share, level * 0.7 + effect * one))
        weighted, weight = weigh(outcomes_of(rows))
        expected += chance * math.exp(wealth(weighted - weight * effect, stakes())[-1])
    assert expected == pytest.approx(1, abs=1e-9)


def test_alike_variants_seldom_get_a_winner_however_often_one_looks() -> None:
    wins = sum(weigh_up(simulated(seed, 400, 0.4, 0), 0.05, stakes()).decided_at is not None for seed in range(150))
    assert wins <= 0.05 * 150


@pytest.mark.parametrize("effect", [0.3, -0.3])
def test_a_real_difference_is_found_with_its_sign_and_lies_in_the_interval(effect: float) -> None:
    found = weigh_up(simulated(3, 2000, 0.5, effect), 0.05, stakes(0.3))
    assert found.decided_at is not None
    assert found.low < effect < found.high
    assert found.low > 0 if effect > 0 else found.high < 0
    assert found.e_value >= 20
    assert not found.drifts


def test_intervals_only_shrink_and_the_verdict_stays() -> None:
    whole = simulated(5, 600, 0.3, 0.25)
    before = None
    for count in range(50, 601, 50):
        part = Outcomes(whole.treated[:count], whole.share[:count], whole.value[:count])
        now = weigh_up(part, 0.05, stakes())
        if before is not None:
            assert now.low >= before.low
            assert now.high <= before.high
            assert before.decided_at in (None, now.decided_at)
        before = now


def test_an_effect_that_turns_round_is_told() -> None:
    up, down = simulated(1, 1500, 0.2, 0.6), simulated(2, 6000, 0.8, -0.6)
    both = Outcomes(*(np.concatenate(pair) for pair in zip(_arrays(up), _arrays(down), strict=True)))
    found = weigh_up(both, 0.05, stakes())
    assert found.drifts
    assert found.low <= found.estimate <= found.high


def _arrays(outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return outcomes.treated, outcomes.share, outcomes.value


def test_nothing_is_known_without_outcomes() -> None:
    nothing = np.zeros(0)
    found = weigh_up(Outcomes(nothing, nothing, nothing), 0.05, stakes())
    assert (found.low, found.high, found.estimate, found.decided_at) == (-1, 1, 0, None)


@given(st.floats(0.001, 0.9), st.floats(0.05, 0.95))
def test_stakes_never_risk_everything(effect: float, baseline: float) -> None:
    given_ = stakes(effect, baseline)
    assert len(given_) == STAKES
    assert 0 < given_.min() <= given_.max() < 1


def test_a_smaller_effect_and_more_power_take_more_outcomes() -> None:
    base = plan(Question(baseline=0.3, effect=0.1))
    assert base.typical <= base.enough
    assert plan(Question(baseline=0.3, effect=0.05)).enough > base.enough
    assert plan(Question(baseline=0.3, effect=0.1, power=0.95)).enough > base.enough
    assert plan(Question(baseline=0.3, effect=0.1, deviation=0.1)).fixed < base.fixed
    # (1.96 + 0.8416)^2 (0.3 * 0.7 + 0.4 * 0.6) / 0.1^2 in each variant: the textbook's two proportions
    assert base.fixed == math.ceil(2 * 7.8489 * 0.45 / 0.01)
    assert plan(Question(baseline=0.3, effect=0.1)) == base


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"baseline": 1.0}, "baseline"),
        ({"effect": 0.0}, "effect"),
        ({"effect": 0.8}, "effect"),
        ({"alpha": 0.0}, "alpha"),
        ({"power": 0.3}, "power"),
        ({"share": 1.0}, "share"),
        ({"deviation": 0.7}, "deviation"),
        ({"deviation": 5e-324}, "deviation"),
        ({"baseline": 5e-324, "effect": 0.9999999999999999}, "baseline"),
        ({"effect": 5e-324}, "effect"),
        ({"alpha": 5e-324}, "alpha"),
    ],
)
def test_a_question_without_an_answer_is_refused_by_name(wrong: dict[str, float], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        plan(Question(**({"baseline": 0.3, "effect": 0.1} | wrong)))
    assert refused.value.param == param
