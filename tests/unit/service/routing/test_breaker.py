"""The circuit as a machine that Hypothesis drives, the budget of retries, and the pulse."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pagoda.core.errors import ContextTooLong, ModelTimeout, Overloaded, Rejected, Unavailable
from pagoda.model.engines.openai import STOPPED, UNREACHABLE
from pagoda.service.routing.breaker import Breaker, Fault
from pagoda.service.routing.budget import RetryBudget
from pagoda.service.routing.fault import outcome_of, rest_after
from pagoda.service.routing.pulse import Pulse

THRESHOLDS: dict[Fault, int] = {"death": 1, "timeout": 3, "failure": 5}


class Circuit(RuleBasedStateMachine):
    """Requests begin when they are allowed and end in any order and way."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.breaker = Breaker(THRESHOLDS, 2.0)
        self.running: list[bool] = []
        self.row: dict[Fault, int] = dict.fromkeys(THRESHOLDS, 0)

    @rule(seconds=st.floats(0, 70))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.allows(self.now))
    @rule()
    def begin(self) -> None:
        half = self.breaker.state(self.now) == "half_open"
        probe = self.breaker.begin(self.now)
        assert probe == half
        self.running.append(probe)
        if half:
            assert not self.breaker.allows(self.now), "one probe at a time"

    @precondition(lambda self: self.running)
    @rule(place=st.integers(0, 100))
    def succeed(self, place: int) -> None:
        probe, was = self._end(place), self.breaker.state(self.now)
        self.breaker.succeed(probe)
        if probe or was == "closed":
            assert self.breaker.state(self.now) == "closed"
            self.row = dict.fromkeys(THRESHOLDS, 0)
        else:
            assert self.breaker.state(self.now) == was, "what was sent before it opened closes nothing"

    @precondition(lambda self: self.running)
    @rule(place=st.integers(0, 100), fault=st.sampled_from(list(THRESHOLDS)))
    def fail(self, place: int, fault: Fault) -> None:
        probe, was = self._end(place), self.breaker.state(self.now)
        self.breaker.fail(fault, self.now, probe)
        if was == "closed":
            self.row[fault] += 1
            full = self.row[fault] >= THRESHOLDS[fault]
            assert self.breaker.state(self.now) == ("open" if full else "closed")
        elif probe:
            assert self.breaker.state(self.now) == "open"

    @precondition(lambda self: self.running)
    @rule(place=st.integers(0, 100))
    def abandon(self, place: int) -> None:
        was = self.breaker.state(self.now)
        self.breaker.abandon(self._end(place))
        assert self.breaker.state(self.now) == was, "a client that leaves says nothing of the replica"

    @precondition(lambda self: self.running)
    @rule(place=st.integers(0, 100), seconds=st.floats(0.1, 30))
    def rest(self, place: int, seconds: float) -> None:
        was = self.breaker.state(self.now)
        probe = self._end(place)
        self.breaker.rest(seconds, self.now, probe)
        assert self.breaker.state(self.now) == ("closed" if probe else was), "being full opens nothing"
        assert not self.breaker.allows(self.now)
        if self.breaker.state(self.now) == "closed":
            self.row = dict.fromkeys(THRESHOLDS, 0)

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        self.running = [False] * len(self.running)
        self.row = dict.fromkeys(THRESHOLDS, 0)
        assert self.breaker.allows(self.now)

    def _end(self, place: int) -> bool:
        return self.running.pop(place % len(self.running))

    @invariant()
    def an_open_circuit_takes_nothing_and_says_for_how_long(self) -> None:
        if self.breaker.state(self.now) == "open":
            assert not self.breaker.allows(self.now)
            assert 0 < self.breaker.resumes(self.now) <= 60.001
        if self.breaker.allows(self.now):
            assert self.breaker.resumes(self.now) == 0

    @invariant()
    def it_never_stays_shut(self) -> None:
        if not any(self.running):
            assert self.breaker.allows(self.now + 200)


TestCircuit = Circuit.TestCase


def test_a_circuit_that_fails_its_probe_stays_open_twice_as_long() -> None:
    breaker, now, waits = Breaker(THRESHOLDS, 2.0), 0.0, []
    breaker.fail("death", now, probe=False)
    for _ in range(7):
        waits.append(breaker.resumes(now))
        now += breaker.resumes(now)
        assert breaker.begin(now)
        breaker.fail("death", now, probe=True)
    assert waits == [2, 4, 8, 16, 32, 60, 60]


def test_what_an_error_says_of_its_replica() -> None:
    assert outcome_of(Rejected("no")) == "client"
    assert outcome_of(ContextTooLong(9, 1)) == "client"
    assert outcome_of(ModelTimeout("late")) == "timeout"
    assert outcome_of(Unavailable("gone", code=UNREACHABLE)) == "death"
    assert outcome_of(Unavailable("cut", code=STOPPED)) == "failure"
    assert outcome_of(Unavailable("500")) == "failure"
    assert outcome_of(Unavailable("401", retryable=False)) == "refused"
    busy = Overloaded("full", retry_after=7)
    assert (outcome_of(busy), rest_after(busy)) == ("overload", 7)
    told = Unavailable("503")
    told.retry_after = 3.0
    assert (outcome_of(told), rest_after(told)) == ("overload", 3)


@given(
    steps=st.lists(st.one_of(st.just("request"), st.just("retry"), st.floats(0, 5)), max_size=400),
    share=st.floats(0, 1),
)
def test_retries_stay_within_their_budget(steps: list[str | float], share: float) -> None:
    now = requests = retries = 0.0
    budget = RetryBudget(share, now)
    for step in steps:
        if step == "request":
            requests += 1
            budget.earn()
        elif step == "retry":
            retries += budget.spend(now)
        else:
            now += float(step)
        assert retries <= 10 + share * requests + now + 1e-6


def test_the_budget_comes_back() -> None:
    budget = RetryBudget(0.2, 0.0)
    assert sum(budget.spend(0.0) for _ in range(50)) == 10
    assert not budget.spend(0.5)
    assert budget.spend(2.0)


def test_silence_is_compared_with_the_engines_own_pace() -> None:
    quick, slow = (Pulse(3.0, 3, 0.0) for _ in range(2))
    now = 0.0
    for _ in range(20):  # one that sends tokens, one that takes four seconds for each
        now += 4.0
        slow.beat(now)
        for part in range(40):
            quick.beat(now - 4 + part / 10)
    verdicts = []
    for _ in range(8):
        now += 1.0
        verdicts.append((quick.look(now), slow.look(now)))
    assert quick.wedged
    assert not slow.wedged
    assert [late for late, _ in verdicts].count(True) >= 3


def test_one_miss_is_none_and_a_beat_forgives_all() -> None:
    pulse = Pulse(1.0, 3, 0.0)
    assert pulse.look(2.0)
    assert pulse.look(3.0)
    assert not pulse.wedged
    pulse.beat(3.1)
    assert pulse.missed == 0


@given(gaps=st.lists(st.floats(0.001, 500), min_size=1, max_size=60))
def test_patience_is_bounded_whatever_was_seen(gaps: list[float]) -> None:
    pulse, now = Pulse(3.0, 3, 0.0), 0.0
    for gap in gaps:
        now += gap
        pulse.look(now)
        pulse.beat(now)
        assert 3.0 <= pulse.patience(now) <= 120.0
    assert math.isclose(pulse.patience(now + 6000), 3.0)


def test_a_pause_that_counted_as_the_end_does_not_become_usual() -> None:
    pulse = Pulse(3.0, 3, 0.0)
    for second in range(1, 100):
        pulse.look(float(second))
    assert pulse.wedged
    pulse.beat(100.0)
    assert pulse.patience(100.0) <= 6.0 + 1e-9
