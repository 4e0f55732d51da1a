"""Models that sleep, by the rules of model memory, one by one (over arbitrary orders of events: ``test_residency``)."""

from __future__ import annotations

from pagoda.model.engines.contract import Footprint
from pagoda.service.residency import Grant, Load, Residency, Sleep, Unload, Wake
from tests.unit.service.test_residency import BUDGET, QUANTUM, memory, need, ready


def asleep(residency: Residency, model: str, other: str, now: float, ticket: int) -> None:
    """Put to sleep by the need for another one, which is ready and idle then."""
    assert residency.want(other, need(other), ticket, now) == [Sleep(model)]
    assert residency.fell_asleep(model, now) == [Load(other)]
    residency.loaded(other, now)
    residency.release(other, now)


def test_a_model_sleeps_for_another_and_wakes_when_it_is_wanted() -> None:
    residency = Residency(BUDGET, quantum=QUANTUM)
    ready(residency, "one", 0.0)
    assert residency.want("two", need("two"), 1, 1.0) == [Sleep("one")]
    assert residency.resident("one").state == "draining"
    assert residency.held == Footprint(host=45, gpu=50), "on its way its weights are in both places"
    assert residency.fell_asleep("one", 2.0) == [Load("two")]
    assert residency.held == Footprint(host=45 + 5, gpu=4 + 70)
    residency.loaded("two", 3.0)
    residency.release("two", 3.0)
    assert residency.want("one", need("one"), 2, 4.0) == [Unload("two")], "the weights of both find no room on the host"
    assert residency.gone("two", 5.0) == [Wake("one")]
    assert residency.held == Footprint(host=45, gpu=50)
    assert residency.loaded("one", 6.0) == [Grant("one", 2)]
    assert residency.held == need("one").footprint


def test_who_sleeps_leaves_for_the_hosts_memory_first() -> None:
    residency = Residency(BUDGET, quantum=QUANTUM)
    ready(residency, "tiny", 0.0)
    ready(residency, "one", 1.0)
    asleep(residency, "one", "two", 2.0, 1)
    assert residency.want("half", memory(50), 2, 3.0) == [Unload("one")], "not the one that was used before it"
    assert residency.gone("one", 4.0) == [Load("half")]


def test_a_sleeper_ends_when_an_operator_says_so_it_dies_or_its_time_is_up() -> None:
    for event in ("unload", "crash", "idle"):
        residency = Residency(BUDGET, quantum=QUANTUM, idle_seconds=60)
        ready(residency, "one", 0.0)
        asleep(residency, "one", "two", 1.0, 1)
        if event == "crash":
            assert residency.crashed("one", "killed", 2.0) == []
        else:
            actions = residency.unload("one", 2.0) if event == "unload" else residency.tick(60.5)
            assert actions == [Unload("one")]
            residency.gone("one", 60.6)
        assert (residency.resident("one").state, residency.resident("one").held) == ("unloaded", Footprint())


def test_an_operators_word_while_it_falls_asleep_is_not_forgotten() -> None:
    residency = Residency(BUDGET, quantum=QUANTUM)
    ready(residency, "one", 0.0)
    residency.want("two", need("two"), 1, 1.0)
    assert residency.unload("one", 1.5) == []
    assert residency.fell_asleep("one", 2.0) == [Load("two"), Unload("one")]


def test_one_that_does_not_wake_is_loaded_in_its_room() -> None:
    residency = Residency(BUDGET, quantum=QUANTUM)
    ready(residency, "one", 0.0)
    asleep(residency, "one", "two", 1.0, 1)
    residency.want("one", need("one"), 2, 2.0)
    assert residency.gone("two", 3.0) == [Wake("one")]
    assert residency.lost("one", "killed", 4.0) == [Load("one")]
    assert residency.held == need("one").footprint
    assert residency.loaded("one", 5.0) == [Grant("one", 2)]
