"""Slowing down: longer with every wrong key, bounded in time and memory, by address."""

from __future__ import annotations

from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from pagoda.service.keys.slowdown import Slowdown


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_few_mistakes_are_free_and_each_further_one_costs_twice_as_much() -> None:
    clock = Clock()
    slowdown = Slowdown(clock)
    waits = []
    for _ in range(14):
        slowdown.failed("192.0.2.1")
        waits.append(slowdown.wait("192.0.2.1"))
    assert waits[:4] == [0.0] * 4
    assert waits[4:8] == [0.5, 1.0, 2.0, 4.0]
    assert waits[-1] == 30.0
    assert slowdown.wait("192.0.2.2") == 0.0
    clock.now += 30
    assert slowdown.wait("192.0.2.1") == 0.0


def test_an_address_is_forgiven_after_a_while() -> None:
    clock = Clock()
    slowdown = Slowdown(clock)
    for _ in range(20):
        slowdown.failed("192.0.2.1")
    clock.now += 601
    assert slowdown.failed("192.0.2.1") == 1
    assert slowdown.wait("192.0.2.1") == 0.0


def test_an_ipv6_network_is_one_address() -> None:
    slowdown = Slowdown(Clock())
    for number in range(10):
        slowdown.failed(f"2001:db8::{number}")
    assert slowdown.wait("2001:db8::ffff") > 0
    assert slowdown.wait("2001:db8:0:1::1") == 0.0
    assert slowdown.failed("not:an:address") == 1


@given(st.lists(st.tuples(st.integers(0, 100), st.floats(0, 100)), max_size=60))
def test_memory_and_waits_stay_bounded(events: list[tuple[int, float]]) -> None:
    clock = Clock()
    slowdown = Slowdown(clock)
    with mock.patch("pagoda.service.keys.slowdown._MOST_ADDRESSES", 20):
        for number, pause in events:
            address = f"192.168.0.{number}"
            clock.now += pause
            slowdown.failed(address)
            assert 0 <= slowdown.wait(address) <= 30
            assert len(slowdown) <= 20
