"""The ways to choose a replica: shares, balance, affinity within bounds, and little movement."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.types import Generation
from pagoda.service.routing.policies import (
    BOUND,
    KINDS,
    LeastOutstanding,
    Load,
    PowerOfTwo,
    PrefixAffinity,
    RoundRobin,
)
from pagoda.service.routing.prefix import prefix_of

loads = st.lists(st.tuples(st.sampled_from([0.5, 1.0, 2.0, 3.0]), st.integers(0, 50)), min_size=1, max_size=8).map(
    lambda rows: [Load(f"r{place}", weight, busy) for place, (weight, busy) in enumerate(rows)]
)


@pytest.mark.parametrize("kind", KINDS)
@given(loads=loads, prefix=st.lists(st.integers(0, 5), max_size=4))
def test_every_policy_chooses_one_of_those_offered(kind: str, loads: list[Load], prefix: list[int]) -> None:
    policy = KINDS[kind]()
    for _ in range(3):
        assert policy.choose(loads, prefix) in loads


@given(weights=st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_round_robin_keeps_the_weights_exactly_and_in_no_lumps(weights: list[int]) -> None:
    policy = RoundRobin()
    offered = [Load(f"r{place}", weight) for place, weight in enumerate(weights)]
    seen: Counter[str] = Counter()
    for turn in range(1, sum(weights) + 1):
        seen[policy.choose(offered, ()).name] += 1
        for load in offered:
            fair = turn * load.weight / sum(weights)
            assert abs(seen[load.name] - fair) < len(weights)
    assert all(seen[load.name] == load.weight for load in offered)


@given(loads=loads)
def test_the_least_busy_is_taken_by_weight(loads: list[Load]) -> None:
    chosen = LeastOutstanding().choose(loads, ())
    assert all(chosen.busyness <= load.busyness for load in loads)


@given(seed=st.integers(0, 10_000), count=st.integers(2, 8))
def test_power_of_two_keeps_the_load_level(seed: int, count: int) -> None:
    policy = PowerOfTwo(random.Random(seed))
    offered = [Load(f"r{place}") for place in range(count)]
    for _ in range(200 * count):
        policy.choose(offered, ()).outstanding += 1
    assert max(load.outstanding for load in offered) <= 200 + 12


@given(
    requests=st.lists(st.integers(0, 3), min_size=1, max_size=200),
    weights=st.lists(st.sampled_from([1.0, 2.0]), min_size=2, max_size=5),
)
def test_affinity_never_passes_its_bound(requests: list[int], weights: list[float]) -> None:
    """However hot one prefix is, no replica has more than the bound allows (and everyone may have one)."""
    policy = PrefixAffinity()
    offered = [Load(f"r{place}", weight) for place, weight in enumerate(weights)]
    for prefix in requests:
        total = sum(load.outstanding for load in offered) + 1
        chosen = policy.choose(offered, (prefix,))
        chosen.outstanding += 1
        share = BOUND * total * chosen.weight / sum(weights)
        least = min((load.outstanding + (load is not chosen)) / load.weight for load in offered)
        assert chosen.outstanding <= max(1, math.ceil(share)) or chosen.outstanding / chosen.weight <= least


def test_a_prefix_stays_where_it_was_served() -> None:
    policy = PrefixAffinity()
    offered = [Load(f"r{place}") for place in range(4)]
    homes = {prefix: policy.choose(offered, (prefix,)).name for prefix in range(1000)}
    assert all(policy.choose(offered, (prefix, prefix + 5000)).name == home for prefix, home in homes.items())
    assert min(Counter(homes.values()).values()) > 120, "the ring gives each its part"


def test_few_prefixes_move_when_a_replica_joins_or_leaves() -> None:
    numbers = random.Random(1).sample(range(2**32), 3000)
    four, five = ([Load(f"r{place}") for place in range(count)] for count in (4, 5))
    before = {number: PrefixAffinity().choose(four, (number,)).name for number in numbers}
    after = {number: PrefixAffinity().choose(five, (number,)).name for number in numbers[:300]}
    moved = [number for number in after if after[number] != before[number]]
    assert all(after[number] == "r4" for number in moved), "those that move go to the new one"
    assert len(moved) < 0.35 * 300


def test_a_longer_known_beginning_wins_over_a_shorter() -> None:
    policy = PrefixAffinity()
    policy._served.update({1: "a", 2: "b"})
    assert policy.choose([Load("a"), Load("b")], (1, 2, 3)).name == "b"
    assert policy._served[3] == "b"


@given(text=st.text(max_size=3000), more=st.text(min_size=1, max_size=1000))
def test_hashes_tell_common_beginnings(text: str, more: str) -> None:
    def hashes(content: str) -> tuple[int, ...]:
        return prefix_of(Generation(model="m", messages=({"role": "user", "content": content},)))

    one, two = hashes(text), hashes(text + more)
    whole = [block for block in one if len(one) > 1 or len(text) >= 300]
    assert two[: len(whole)] == tuple(whole)
    assert prefix_of(Generation(model="m", prompt=(1, 2, 3))) == prefix_of(Generation(model="m", prompt=(1, 2, 3)))
