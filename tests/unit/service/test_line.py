"""The rules of the line before a model, over arbitrary arrivals, and one by one."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pagoda.service.line import Line, Turn, Waiter

CAPACITY, LIMIT = 4, 6


class Crowd(RuleBasedStateMachine):
    """Arrivals, departures and ends in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.line = Line(CAPACITY, LIMIT, aging_seconds=60)
        self.now = 0.0
        self.waiting: list[Waiter] = []
        self.running: list[Waiter] = []

    def take(self, turn: Turn) -> None:
        for waiter in turn.admitted:
            if waiter in self.waiting:
                self.waiting.remove(waiter)
            self.running.append(waiter)
        for waiter, why in turn.refused:
            assert why in ("full", "displaced", "deadline")
            if waiter in self.waiting:
                assert why == "displaced"
                self.waiting.remove(waiter)

    @rule(
        tenant=st.sampled_from("abc"),
        priority=st.sampled_from([0, 10, 20]),
        cost=st.integers(1, 6),
        patience=st.one_of(st.none(), st.floats(0, 100)),
    )
    def arrive(self, tenant: str, priority: int, cost: int, patience: float | None) -> None:
        waiter = Waiter(tenant, priority, cost, limit=None if patience is None else self.now + patience)
        self.waiting.append(waiter)
        turn = self.line.arrive(waiter, self.now)
        if any(refused is waiter for refused, _ in turn.refused):
            self.waiting.remove(waiter)
        self.take(turn)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        waiter = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(waiter)
        self.line.leave(waiter)
        self.take(self.line.advance(self.now))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), well=st.booleans())
    def end(self, data: Any, well: bool) -> None:
        waiter = data.draw(st.sampled_from(self.running))
        self.running.remove(waiter)
        self.take(self.line.done(waiter, self.now, counts=well))

    @rule(seconds=st.floats(0.01, 90))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def slots_are_never_promised_twice(self) -> None:
        used = sum(waiter.cost for waiter in self.running)
        assert used <= CAPACITY
        assert self.line.free == CAPACITY - used

    @invariant()
    def the_line_is_bounded_and_known(self) -> None:
        assert self.line.waiting == len(self.waiting) == sum(self.line.depths().values())
        assert len(self.waiting) <= LIMIT

    @invariant()
    def nobody_waits_before_an_empty_engine(self) -> None:
        assert self.running or not self.waiting

    def teardown(self) -> None:
        while self.running:
            self.now += 1
            self.take(self.line.done(self.running.pop(), self.now))
        assert not self.waiting


TestCrowd = Crowd.TestCase
TestCrowd.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def full(line: Line, now: float = 0.0, tenant: str = "busy") -> list[Waiter]:
    """Every slot taken."""
    taken = [Waiter(tenant, 10) for _ in range(line.capacity)]
    for waiter in taken:
        assert line.arrive(waiter, now).admitted == (waiter,)
    return taken


def order(line: Line, running: list[Waiter], now: float, seconds: float = 1.0) -> list[Waiter]:
    """Who is admitted as one request after another ends."""
    admitted: list[Waiter] = []
    queue = list(running)
    while queue:
        now += seconds / line.capacity
        turn = line.done(queue.pop(0), now)
        admitted += turn.admitted
        queue += turn.admitted
    return admitted


def test_the_more_urgent_come_first_and_equals_in_order() -> None:
    line = Line(1, 10)
    running = full(line)
    waiters = [Waiter("a", priority) for priority in (20, 10, 0, 10)]
    for place, waiter in enumerate(waiters):
        line.arrive(waiter, 0.1 + place / 100)
    assert order(line, running, 1.0) == [waiters[2], waiters[1], waiters[3], waiters[0]]


def test_waiting_makes_urgent_so_that_nobody_starves() -> None:
    line = Line(1, 10, aging_seconds=60)
    (running,) = full(line)
    batch = Waiter("a", 20)
    line.arrive(batch, 0.0)
    young = Waiter("b", 10)
    line.arrive(young, 59.0)
    assert line.done(running, 59.5).admitted == (young,)
    fresh = Waiter("b", 10)
    line.arrive(fresh, 121.0)
    assert line.done(young, 121.5).admitted == (batch,), "after two minutes it counts as interactive"


def test_a_flood_does_not_delay_another_tenant() -> None:
    line = Line(2, 300)
    running = full(line, tenant="flood")
    for _ in range(200):
        line.arrive(Waiter("flood", 10), 0.0)
    small = Waiter("small", 10)
    line.arrive(small, 0.5)
    assert line.done(running[0], 1.0).admitted == (small,), "it has used nothing yet"


def test_tenants_share_by_time_not_by_count() -> None:
    """One tenant's requests take three times as long; it gets about a third as many turns."""
    line = Line(1, 400)
    now = 0.0
    running = full(line, tenant="long")
    for _ in range(150):
        line.arrive(Waiter("long", 10), now)
        line.arrive(Waiter("short", 10), now)
    served = {"long": 0.0, "short": 0.0}
    current = running[0]
    for _ in range(120):
        took = 3.0 if current.tenant == "long" else 1.0
        served[current.tenant] += took
        now += took
        (current,) = line.done(current, now).admitted
    assert abs(served["long"] - served["short"]) <= 6.0


def test_a_full_line_makes_room_for_those_it_owes_a_place() -> None:
    line = Line(1, 4)
    full(line)
    flood = [Waiter("flood", 10) for _ in range(4)]
    for place, waiter in enumerate(flood):
        line.arrive(waiter, place / 10)
    more = Waiter("flood", 10)
    assert line.arrive(more, 1.0).refused == ((more, "full"),)
    small = Waiter("small", 10)
    assert line.arrive(small, 1.0).refused == ((flood[3], "displaced"),)
    urgent = Waiter("flood", 0)
    assert line.arrive(urgent, 1.0).refused == ((flood[2], "displaced"),)
    batch = Waiter("other", 20)
    assert line.arrive(batch, 1.0).refused == ((batch, "full"),)


def test_a_deadline_that_cannot_be_met_is_refused_early() -> None:
    line = Line(2, 100)
    first = full(line)
    now = 0.0
    for waiter in first:
        now = 10.0
        line.done(waiter, now)
    assert line.slot_seconds == 10.0
    full(line, now)
    for _ in range(4):
        line.arrive(Waiter("a", 10), now)
    hasty = Waiter("a", 10, limit=now + 20.0)
    assert line.expected_wait(hasty, now) == 25.0
    assert line.arrive(hasty, now).refused == ((hasty, "deadline"),)
    patient = Waiter("a", 10, limit=now + 30.0)
    assert line.arrive(patient, now).refused == ()
    other = Waiter("b", 10, limit=now + 20.0)
    assert line.expected_wait(other, now) == 10.0, "another tenant's turn comes sooner"
    assert line.arrive(other, now).refused == ()
    urgent = Waiter("a", 0, limit=now + 6.0)
    assert line.arrive(urgent, now).refused == ()


def test_who_would_wait_too_long_is_refused_unless_it_is_batch_work() -> None:
    line = Line(1, 100, wait_seconds=15)
    line.done(full(line)[0], 10.0)
    full(line, 10.0)
    line.arrive(Waiter("a", 10), 10.0)
    late = Waiter("a", 10)
    assert line.arrive(late, 10.0).refused == ((late, "wait"),)
    assert line.arrive(Waiter("a", 20), 10.0).refused == ()


def test_the_time_to_ask_again_follows_the_rate() -> None:
    line = Line(2, 100)
    assert line.retry_after() == 1.0, "nothing is known yet"
    running = full(line)
    for waiter in running:
        line.done(waiter, 8.0)
    full(line, 8.0)
    for _ in range(9):
        line.arrive(Waiter("a", 10), 8.0)
    assert line.retry_after() == (9 + 1) * 8.0 / 2


def test_a_request_for_many_slots_is_not_overtaken_for_ever() -> None:
    line = Line(4, 10)
    running = full(line)
    wide = Waiter("a", 10, cost=4)
    line.arrive(wide, 0.5)
    narrow = Waiter("a", 10)
    line.arrive(narrow, 0.6)
    for waiter in running[:3]:
        assert line.done(waiter, 1.0).admitted == ()
    assert line.done(running[3], 1.0).admitted == (wide,)
    assert line.done(wide, 2.0).admitted == (narrow,)


def test_what_asks_for_more_slots_than_there_are_takes_all() -> None:
    line = Line(2, 10)
    wide = Waiter("a", 10, cost=9)
    assert line.arrive(wide, 0.0).admitted == (wide,)
    assert (wide.cost, line.free) == (2, 0)


def test_tenants_that_are_gone_leave_no_record() -> None:
    idle = Line(1, 10)
    busy = Line(2, 10)
    busy.arrive(Waiter("steady", 10), 0.0)
    for number in range(5000):
        for line in (idle, busy):
            waiter = Waiter(f"tenant-{number}", 10)
            line.arrive(waiter, float(number))
            line.done(waiter, number + 0.5)
    assert not idle._used
    assert len(busy._used) <= 1025
