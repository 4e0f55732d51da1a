"""Rates and concurrency: never more than the limit in any minute, whatever comes in whatever order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pagoda.service.keys.key import Limits
from pagoda.service.limits.account import Account, Ask, Refusal
from pagoda.service.limits.meter import WINDOW, Grant, Meter

TEAM = Account("team:t", Limits(requests_per_minute=6, tokens_per_minute=90, concurrent=4), "t")
KEYS = [
    Account("key:a", Limits(requests_per_minute=3, concurrent=3), "t"),
    Account("key:b", Limits(tokens_per_minute=50), "t"),
    Account("key:c", Limits(concurrent=1), "t"),
]
LEASE = 45.0


def account(**limits: int) -> tuple[Account, ...]:
    return (Account("key:a", Limits(**limits), "t"),)  # type: ignore[arg-type]


def let_in(meter: Meter, accounts: tuple[Account, ...], now: float, least: int = 0, most: int = 0) -> Grant | Refusal:
    return meter.reserve(f"{now}-{len(meter.grants)}", accounts, Ask(least, most), now)


class Traffic(RuleBasedStateMachine):
    """Calls of three keys of one team, beside a list of all that was ever granted."""

    def __init__(self) -> None:
        super().__init__()
        self.meter = Meter(LEASE)
        self.now = 1000.0
        self.count = 0
        self.open: dict[str, Grant] = {}
        self.told: dict[str, tuple[float, tuple[Account, ...], int, bool]] = {}

    def used(self, account: Account) -> tuple[int, int, int]:
        """By the list alone: requests and tokens of the last minute, and calls under way."""
        recent = [row for row in self.told.values() if account in row[1] and row[0] > self.now - WINDOW]
        under_way = sum(account in self.told[name][1] and self.told[name][3] for name in self.open)
        return sum(row[3] for row in recent), sum(row[2] for row in recent), under_way

    @rule(
        key=st.sampled_from(KEYS),
        least=st.integers(0, 60),
        more=st.integers(0, 40),
        counts=st.booleans(),
    )
    def reserve(self, key: Account, least: int, more: int, counts: bool) -> None:
        self.expire()
        self.count += 1
        accounts, most = (key, TEAM), least + more
        room = []
        for each in accounts:
            requests, tokens, under_way = self.used(each)
            limits = each.limits
            fits = not counts or (
                (limits.requests_per_minute is None or requests < limits.requests_per_minute)
                and (limits.concurrent is None or under_way < limits.concurrent)
            )
            left = most if limits.tokens_per_minute is None else limits.tokens_per_minute - tokens
            room.append(left if fits else -1)
        decision = self.meter.reserve(str(self.count), accounts, Ask(least, most, counts), self.now)
        if min(room) < least:
            assert isinstance(decision, Refusal)
            assert decision.retry_after is None or 0 <= decision.retry_after <= WINDOW
            return
        assert isinstance(decision, Grant)
        assert decision.tokens == min(most, *room)
        self.open[decision.id] = decision
        self.told[decision.id] = (self.now, accounts, decision.tokens, counts)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), used=st.integers(0, 100))
    def settle(self, data: st.DataObject, used: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        grant = self.open.pop(name)
        at, accounts, reserved, counts = self.told[name]
        used = min(used, reserved)
        self.meter.settle(grant, used, self.now)
        self.meter.settle(grant, used + 1, self.now)  # twice is once
        self.told[name] = (at, accounts, used, counts)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        self.meter.renew([self.open[data.draw(st.sampled_from(sorted(self.open)))]], self.now)

    @rule()
    def expire(self) -> None:
        """What nobody renewed is over, and stays charged in full."""
        late = {name for name, grant in self.open.items() if grant.expires <= self.now}
        assert {grant.id for grant in self.meter.expire(self.now)} == late
        for name in late:
            del self.open[name]

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.floats(0, 1000))
    def clock_jumps_back(self, seconds: float) -> None:
        self.meter.tidy(self.now - seconds)

    @rule()
    def tidy(self) -> None:
        self.meter.tidy(self.now)

    @invariant()
    def no_account_passes_its_limits(self) -> None:
        for each in (*KEYS, TEAM):
            requests, tokens, under_way = self.used(each)
            assert requests <= (each.limits.requests_per_minute or 10**9)
            assert tokens <= (each.limits.tokens_per_minute or 10**9)
            assert under_way <= (each.limits.concurrent or 10**9)

    @invariant()
    def nothing_leaks(self) -> None:
        assert set(self.meter.grants) == set(self.open)
        for each in (*KEYS, TEAM):
            tally = self.meter.tally(each.id)
            if tally is not None:
                tally.forget(self.now)
            found = (0, 0, 0) if tally is None else (tally.requests, tally.tokens, tally.open)
            assert found == self.used(each)


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_nobody_is_told_to_wait_longer_than_a_minute() -> None:
    meter, limited, now = Meter(), account(requests_per_minute=1), 1001.7357412870837
    assert isinstance(let_in(meter, limited, now), Grant)
    refused = let_in(meter, limited, now)
    assert isinstance(refused, Refusal)
    assert refused.retry_after == WINDOW, "not a rounding error more"
    early = let_in(meter, limited, now - 5)
    assert isinstance(early, Refusal)
    assert early.retry_after == WINDOW, "a clock that jumped back lengthens nothing"


def test_exactly_ten_in_any_minute() -> None:
    meter, limited = Meter(), account(requests_per_minute=10)
    granted = []
    for step in range(4000):
        now = step * 0.05
        decision = let_in(meter, limited, now)
        if isinstance(decision, Grant):
            granted.append(now)
            meter.settle(decision, 0, now)
    for start in granted:
        assert sum(start <= each < start + WINDOW for each in granted) <= 10
    assert len(granted) == 40


def test_a_refused_call_comes_back_when_it_was_told() -> None:
    meter, limited = Meter(), account(requests_per_minute=2)
    for now in (0.0, 10.0):
        assert isinstance(let_in(meter, limited, now), Grant)
    refusal = let_in(meter, limited, 20.0)
    assert isinstance(refusal, Refusal)
    assert (refusal.account, refusal.limit, refusal.bound, refusal.used, refusal.retry_after) == (
        "key:a", "requests", 2, 2, 40.0,
    )  # fmt: skip
    assert refusal.standing.requests_left == 0
    assert isinstance(let_in(meter, limited, 59.9), Refusal)
    assert isinstance(let_in(meter, limited, 60.0), Grant)


def test_tokens_are_granted_as_far_as_they_go_and_the_wait_is_for_what_is_needed() -> None:
    meter, limited = Meter(), account(tokens_per_minute=100)
    first = let_in(meter, limited, 0.0, 30, 40)
    second = let_in(meter, limited, 5.0, 20, 80)
    assert isinstance(first, Grant)
    assert isinstance(second, Grant)
    assert (first.tokens, second.tokens) == (40, 60)
    refusal = let_in(meter, limited, 6.0, 50, 50)
    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.used, refusal.needed, refusal.retry_after) == ("tokens", 100, 50, 59.0)
    meter.settle(second, 10, 7.0)
    assert isinstance(let_in(meter, limited, 7.0, 50, 50), Grant)
    never = let_in(meter, limited, 7.0, 101, 101)
    assert isinstance(never, Refusal)
    assert never.retry_after is None


def test_the_team_bounds_its_keys_together_and_a_refusal_takes_nothing() -> None:
    meter = Meter()
    team = Account("team:t", Limits(requests_per_minute=3), "t")
    one, other = (Account(f"key:{name}", Limits(requests_per_minute=2), "t") for name in "ab")
    for key in (one, one, other):
        assert isinstance(meter.reserve(f"{key.id}{len(meter.grants)}", (key, team), Ask(0, 0), 0.0), Grant)
    refused = meter.reserve("x", (other, team), Ask(0, 0), 0.0)
    assert isinstance(refused, Refusal)
    assert refused.account == "team:t"
    tally = meter.tally("key:b")
    assert tally is not None
    assert tally.requests == 1


def test_the_standing_is_that_of_the_tightest_account() -> None:
    meter = Meter()
    wide, tight = (
        account(requests_per_minute=100, tokens_per_minute=50),
        Account("team:t", Limits(requests_per_minute=5), "t"),
    )
    grant = meter.reserve("1", (*wide, tight), Ask(10, 20), 7.0)
    assert isinstance(grant, Grant)
    standing = grant.standing
    assert (standing.requests_limit, standing.requests_left, standing.requests_reset) == (5, 4, 60.0)
    assert (standing.tokens_limit, standing.tokens_left) == (50, 30)


def test_accounts_that_nobody_uses_are_forgotten() -> None:
    meter = Meter()
    for number in range(100):
        grant = meter.reserve(str(number), (Account(f"key:{number}", Limits(concurrent=1), "t"),), Ask(0, 0), 0.0)
        assert isinstance(grant, Grant)
        meter.settle(grant, 0, 1.0)
    meter.tidy(59.0)
    assert meter.tally("key:7") is not None
    meter.tidy(61.0)
    assert meter.tally("key:7") is None
