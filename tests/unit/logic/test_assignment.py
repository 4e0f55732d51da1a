"""Who gets which variant: one hash, shares as planned, and nobody moved by a ramp."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.settings import Experiments, Prices
from pagoda.core.types import Call
from pagoda.logic.experiments.allocation import better_shares
from pagoda.logic.experiments.assignment import Assignment, Slice, ramped
from pagoda.logic.experiments.book import Experiment, Seen
from pagoda.logic.experiments.design import HOLDOUT, Design, Metric, Target, Variant
from pagoda.logic.experiments.roster import Roster
from pagoda.logic.experiments.verdict import UNFAIR, judge, unfairness
from pagoda.service.limits.prices import price_table

TARGET = Target(kind="model", name="support")
THUMB = Metric(name="thumb")
units = st.text(min_size=1, max_size=30)


def design(*shares: float, **fields: Any) -> Design:
    names = "abcdefgh"
    variants = tuple(
        Variant(name=names[at], share=share, model=f"model-{names[at]}") for at, share in enumerate(shares)
    )
    return Design(variants=variants, metric=THUMB, **fields)


def rule(chosen: Design, exposure: float = 1.0, slices: tuple[Slice, ...] = (), name: str = "exp-1") -> Assignment:
    return Assignment(name, "local", TARGET, chosen, exposure, slices or ramped((), exposure, chosen.shares))


def experiment(chosen: Design, slices: tuple[Slice, ...] = ()) -> Experiment:
    return Experiment(
        id="exp-1", team="local", name="one", state="running", target=TARGET, design=chosen, exposure=1.0,
        slices=slices or ramped((), 1.0, chosen.shares), revision=1, created=None, started=None, stopped=None,  # type: ignore[arg-type]
    )  # fmt: skip


def test_shares_are_as_planned_and_experiments_know_nothing_of_each_other() -> None:
    first, second = rule(design(0.2, 0.3, 0.5)), rule(design(0.5, 0.5), name="exp-2")
    names = [f"user-{number}" for number in range(20_000)]
    counts = Counter(first.assign(name).variant for name in names)  # type: ignore[union-attr]
    assert [counts[name] / len(names) for name in "abc"] == pytest.approx([0.2, 0.3, 0.5], abs=0.015)
    among_a = [name for name in names if first.assign(name).variant == "a"]  # type: ignore[union-attr]
    halves = Counter(second.assign(name).variant for name in among_a)  # type: ignore[union-attr]
    assert halves["a"] / len(among_a) == pytest.approx(0.5, abs=0.03)


def test_every_process_and_every_version_says_the_same() -> None:
    found = rule(design(0.5, 0.5)).assign("somebody")
    assert found is not None
    assert (found.variant, found.unit) == ("a", "e164b446a6f323b42b1756cf7701b6f5")


@given(units, st.floats(0.01, 0.5), st.floats(0.5, 0.8), st.floats(0.05, 0.95))
def test_a_ramp_moves_nobody(unit: str, before: float, after: float, share: float) -> None:
    chosen = design(0.5, 0.5, holdout=0.2)
    slices = ramped((), before, (0.5, 0.5))
    first = rule(chosen, before, slices).assign(unit)
    wider = ramped(slices, after, (share, 1 - share))
    second = rule(chosen, after, wider).assign(unit)
    if first is not None:
        assert second == first
    assert rule(chosen, before, wider).assign(unit) == first  # narrowed again: those who are left keep theirs
    if second is not None and second.variant == HOLDOUT:
        assert first == second


def test_a_model_that_the_key_may_not_ask_keeps_the_call_outside() -> None:
    roster = Roster(lambda: None, Experiments(), price_table(Prices()))
    roster._running = {("local", "model", "support"): rule(design(0.5, 0.5))}
    call = Call(unit="somebody")
    assert roster.model_of(call, "support", None) == "model-a"
    assert roster.model_of(call, "support", ("model-b",)) is None
    assert roster.model_of(call, "other", None) is None
    assert roster.model_of(Call(unit="somebody", tenant="blue"), "support", None) is None
    assert len(roster._sightings._waiting) == 1


def test_the_unit_is_the_header_else_the_user_else_the_key() -> None:
    roster = Roster(lambda: None, Experiments(), price_table(Prices()))
    sticky = rule(design(0.5, 0.5))
    call = Call(unit="u", user="v", key_id="k")
    assert roster._unit(sticky, call) == "u"
    assert roster._unit(sticky, Call(user="v", key_id="k")) == "v"
    assert roster._unit(sticky, Call(key_id="k")) == "k"
    assert roster._unit(rule(design(0.5, 0.5, unit="request")), call) == call.request_id


def test_prompts_get_a_version_by_their_label() -> None:
    versions = tuple(Variant(name=name, share=0.5, version=number) for name, number in (("old", 3), ("new", 4)))
    chosen = Design(variants=versions, metric=THUMB)
    target = Target(kind="prompt", name="summary", label="production")
    roster = Roster(lambda: None, Experiments(), price_table(Prices()))
    running = Assignment("exp-1", "local", target, chosen, 1.0, ramped((), 1.0, chosen.shares))
    roster._running = {("local", "prompt", "summary@production"): running}
    found = {roster.version_of(Call(unit=f"user-{number}"), "summary", "production") for number in range(50)}
    assert found == {3, 4}
    assert roster.version_of(Call(), "summary", "staging") is None


def test_lost_exposures_are_told_and_no_outcome_is_trusted() -> None:
    even = experiment(design(0.5, 0.5))
    assert unfairness(even, {("a", 0): 5030, ("b", 0): 4970}) < 1
    assert unfairness(even, {("a", 0): 5300, ("b", 0): 4700}) > UNFAIR
    seen = Seen(("a", "b") * 400, (0,) * 800, (0.0, 1.0) * 400)
    fair = judge(even, {"thumb": seen}, {("a", 0): 400, ("b", 0): 400})
    assert (fair.winner, fair.sentence[:7]) == ("b", "b wins:")
    lost = judge(even, {"thumb": seen}, {("a", 0): 400, ("b", 0): 200})
    assert (lost.winner, "no outcome can be trusted" in lost.sentence) == (None, True)


def test_adaptive_shares_follow_outcomes_and_leave_a_tenth() -> None:
    chosen = design(0.5, 0.5, unit="request", allocation="adaptive")
    few = Seen(("a", "b") * 5, (0,) * 10, (0.0, 1.0) * 5)
    assert better_shares(experiment(chosen), few) is None
    many = Seen(("a", "b") * 100, (0,) * 200, (0.0, 1.0) * 100)
    shares = better_shares(experiment(chosen), many)
    assert shares == pytest.approx((0.1, 0.9))
    worse = Design(
        variants=chosen.variants, metric=Metric(name="refusal", direction="down"), unit="request", allocation="adaptive"
    )
    assert better_shares(experiment(worse), many) == pytest.approx((0.9, 0.1))
    later = experiment(chosen, (Slice(1.0, (0.5, 0.5)), Slice(1.0, (0.1, 0.9))))
    assert {later.assignment.assign(f"r{number}").slice for number in range(20)} == {1}  # type: ignore[union-attr]
