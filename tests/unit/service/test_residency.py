"""The rules of model memory, over arbitrary orders of events, and one by one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pagoda.model.engines.contract import Footprint, Memory
from pagoda.service.residency import Action, Grant, Load, Refuse, Residency, Sleep, Unload, Wake

BUDGET = Footprint(host=100, gpu=100)
SIZES = {"tiny": 10, "small": 40, "half": 50, "large": 90, "huge": 101}
SLEEPERS = {"one": 40, "two": 60, "three": 80}
"""Models on the GPU that can sleep: their weights then lie on the host, and a little stays on the GPU."""
MODELS = sorted({*SIZES, *SLEEPERS})
QUANTUM = 10.0


def memory(total: int) -> Memory:
    return Memory(weights=total, kv_cache=0, overhead=0)


def sleepy(weights: int) -> Memory:
    asleep = Footprint(host=5 + weights, gpu=4)
    return Memory(weights=weights, kv_cache=10, overhead=5, on_gpu=True, asleep=asleep)


def need(model: str) -> Memory:
    return sleepy(SLEEPERS[model]) if model in SLEEPERS else memory(SIZES[model])


def both(model: str) -> Footprint:
    """What is set aside on the way to sleep and back."""
    return need(model).footprint.at_least(need(model).asleep or Footprint())


class Residents(RuleBasedStateMachine):
    """Events in any order; the machine's environment (processes that load, end and crash) is played by the rules."""

    def __init__(self) -> None:
        super().__init__()
        self.residency = Residency(BUDGET, quantum=QUANTUM)
        self.now = 0.0
        self.tickets = 0
        self.waiting: dict[int, str] = {}
        self.running: list[str] = []
        self.loading: set[str] = set()
        self.ending: dict[str, Footprint] = {}
        self.ready: set[str] = set()
        self.dozing: set[str] = set()
        self.asleep: set[str] = set()
        self.waking: set[str] = set()
        self.pinned: set[str] = set()

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Load(model):
                    assert model not in self.here
                    self.loading.add(model)
                case Unload(model):
                    assert model in self.ready | self.asleep
                    assert model not in self.running, "a model with requests in flight was made to leave"
                    held = self.held(model)
                    self.ready.discard(model)
                    self.asleep.discard(model)
                    self.ending[model] = held
                case Sleep(model):
                    assert model not in self.running, "a model with requests in flight was put to sleep"
                    assert need(model).asleep is not None
                    self.ready.remove(model)
                    self.dozing.add(model)
                case Wake(model):
                    self.asleep.remove(model)
                    self.waking.add(model)
                case Grant(model, ticket):
                    assert model in self.ready
                    assert self.waiting.pop(ticket) == model
                    self.running.append(model)
                case Refuse(model, ticket, reason, too_large):
                    assert self.waiting.pop(ticket) == model
                    assert reason
                    if too_large:
                        others = [self.held(name) for name in self.pinned - {model}]
                        assert not sum(others, need(model).footprint).within(BUDGET)

    @property
    def here(self) -> set[str]:
        return self.loading | self.ending.keys() | self.ready | self.dozing | self.asleep | self.waking

    def held(self, model: str) -> Footprint:
        """What the model's process has or is about to have."""
        if model in self.ending:
            return self.ending[model]
        if model in self.dozing | self.waking:
            return both(model)
        if model in self.asleep:
            return need(model).asleep or Footprint()
        return need(model).footprint if model in self.here else Footprint()

    @rule(model=st.sampled_from(MODELS))
    def want(self, model: str) -> None:
        self.tickets += 1
        self.waiting[self.tickets] = model
        self.carry_out(self.residency.want(model, need(model), self.tickets, self.now))

    @rule(model=st.sampled_from(MODELS))
    def use(self, model: str) -> None:
        twin = copy.deepcopy(self.residency)
        if self.residency.use(model):
            assert twin.want(model, need(model), 0, self.now) == [Grant(model, 0)]
            self.running.append(model)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: Any) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.waiting)))
        model = self.waiting.pop(ticket)
        self.carry_out(self.residency.give_up(model, ticket, self.now))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: Any) -> None:
        model = data.draw(st.sampled_from(self.running))
        self.running.remove(model)
        self.carry_out(self.residency.release(model, self.now))
        assert copy.deepcopy(self.residency).tick(self.now) == [], "something that could be done was left undone"

    @precondition(lambda self: self.loading)
    @rule(data=st.data(), well=st.booleans())
    def load_ends(self, data: Any, well: bool) -> None:
        model = data.draw(st.sampled_from(sorted(self.loading)))
        self.loading.remove(model)
        if well:
            self.ready.add(model)
            self.carry_out(self.residency.loaded(model, self.now))
        else:
            self.carry_out(self.residency.failed(model, "broken file", self.now))

    @precondition(lambda self: self.ending)
    @rule(data=st.data())
    def process_ends(self, data: Any) -> None:
        model = data.draw(st.sampled_from(sorted(self.ending)))
        del self.ending[model]
        self.carry_out(self.residency.gone(model, self.now))

    @precondition(lambda self: self.dozing)
    @rule(data=st.data(), well=st.booleans())
    def sleep_begins(self, data: Any, well: bool) -> None:
        model = data.draw(st.sampled_from(sorted(self.dozing)))
        self.dozing.remove(model)
        if well:
            self.asleep.add(model)
            self.carry_out(self.residency.fell_asleep(model, self.now))
        else:
            self.carry_out(self.residency.lost(model, "out of memory", self.now))

    @precondition(lambda self: self.waking)
    @rule(data=st.data(), well=st.booleans())
    def sleep_ends(self, data: Any, well: bool) -> None:
        model = data.draw(st.sampled_from(sorted(self.waking)))
        self.waking.remove(model)
        if well:
            self.ready.add(model)
            self.carry_out(self.residency.loaded(model, self.now))
        else:
            self.carry_out(self.residency.lost(model, "killed", self.now))

    @precondition(lambda self: self.ready | self.asleep)
    @rule(data=st.data())
    def crash(self, data: Any) -> None:
        model = data.draw(st.sampled_from(sorted(self.ready | self.asleep)))
        self.ready.discard(model)
        self.asleep.discard(model)
        self.carry_out(self.residency.crashed(model, "killed", self.now))

    @rule(model=st.sampled_from(MODELS))
    def unload(self, model: str) -> None:
        self.carry_out(self.residency.unload(model, self.now))

    @precondition(lambda self: self.ready | self.asleep)
    @rule(data=st.data())
    def pin(self, data: Any) -> None:
        model = data.draw(st.sampled_from(sorted(self.ready | self.asleep)))
        self.pinned.add(model)
        self.carry_out(self.residency.pin(model, True, self.now))

    @rule()
    def unpin(self) -> None:
        for model in sorted(self.pinned):
            self.carry_out(self.residency.pin(model, False, self.now))
        self.pinned.clear()

    @rule(seconds=st.floats(0.1, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.residency.tick(self.now))

    @invariant()
    def memory_is_never_promised_twice(self) -> None:
        assert self.residency.held.within(BUDGET)
        assert sum((self.held(model) for model in self.here), Footprint()) == self.residency.held

    @invariant()
    def nobody_is_forgotten(self) -> None:
        known = {t: r.model for r in self.residency.residents.values() for t in r.waiting}
        assert known == self.waiting
        for model in MODELS:
            assert self.residency.resident(model).in_flight == self.running.count(model)

    def teardown(self) -> None:
        """Whatever happened, once loads succeed and requests end, everyone waiting is served or refused."""
        self.unpin()
        for _ in range(200):
            if not (self.waiting or self.running or self.here - self.ready - self.asleep):
                break
            self.all_goes_well()
            for model in list(self.running):
                self.running.remove(model)
                self.carry_out(self.residency.release(model, self.now))
            self.time_passes(QUANTUM)
        assert not self.waiting, "someone waits for ever"
        for model in MODELS:
            self.unload(model)
        self.all_goes_well()
        assert self.residency.held == Footprint(), "memory was not given back"

    def all_goes_well(self) -> None:
        """What is under way comes to its end."""
        for model in sorted(self.loading | self.waking):
            self.loading.discard(model)
            self.waking.discard(model)
            self.ready.add(model)
            self.carry_out(self.residency.loaded(model, self.now))
        for model in sorted(self.dozing):
            self.dozing.remove(model)
            self.asleep.add(model)
            self.carry_out(self.residency.fell_asleep(model, self.now))
        for model in sorted(self.ending):
            del self.ending[model]
            self.carry_out(self.residency.gone(model, self.now))


TestResidents = Residents.TestCase
TestResidents.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.fixture
def residency() -> Residency:
    return Residency(BUDGET, quantum=QUANTUM)


def ready(residency: Residency, model: str, now: float, ticket: int = 0) -> None:
    """Loaded, asked for once, and idle again."""
    residency.want(model, need(model), ticket, now)
    residency.loaded(model, now)
    residency.release(model, now)


def test_the_least_recently_used_idle_model_leaves(residency: Residency) -> None:
    ready(residency, "small", 1.0)
    ready(residency, "half", 2.0)
    residency.want("small", memory(40), 3, 3.0)
    residency.release("small", 4.0)
    assert residency.want("tiny", memory(10), 4, 5.0) == [Load("tiny")], "there is room"
    assert residency.want("large", memory(90), 5, 6.0) == [Unload("small"), Unload("half")]
    residency.loaded("tiny", 6.5)
    assert residency.gone("small", 7.0) == []
    residency.release("tiny", 7.5)
    assert residency.gone("half", 8.0) == [Load("large")]
    assert residency.held == Footprint(host=100)


def test_only_as_many_leave_as_are_needed(residency: Residency) -> None:
    ready(residency, "small", 1.0)
    ready(residency, "half", 2.0)
    assert residency.want("other", memory(30), 3, 3.0) == [Unload("small")]


def test_two_cold_models_at_once_are_both_loaded_when_both_fit(residency: Residency) -> None:
    assert residency.want("small", memory(40), 1, 0.0) == [Load("small")]
    assert residency.want("half", memory(50), 2, 0.0) == [Load("half")]


def test_of_two_cold_models_that_do_not_fit_together_one_waits_in_turn(residency: Residency) -> None:
    assert residency.want("large", memory(90), 1, 0.0) == [Load("large")]
    assert residency.want("half", memory(50), 2, 0.0) == []
    assert residency.loaded("large", 1.0) == [Grant("large", 1)]
    assert residency.tick(5.0) == [], "a model is not made to leave before the request that loaded it"
    assert residency.release("large", 6.0) == [Unload("large")]
    assert residency.gone("large", 7.0) == [Load("half")]
    assert residency.loaded("half", 8.0) == [Grant("half", 2)]


def test_two_models_that_are_always_busy_take_turns(residency: Residency) -> None:
    residency.want("large", memory(90), 1, 0.0)
    residency.loaded("large", 0.0)
    residency.want("half", memory(50), 2, 1.0)
    assert residency.want("large", memory(90), 3, 2.0) == [Grant("large", 3)], "its turn lasts a while"
    assert residency.next_time(2.0) == QUANTUM
    residency.tick(QUANTUM)
    assert residency.want("large", memory(90), 4, QUANTUM) == [], "its turn is over"
    assert residency.release("large", 11.0) == []
    assert residency.release("large", 12.0) == [Unload("large")]
    assert residency.gone("large", 13.0) == [Load("half")]
    assert residency.loaded("half", 14.0) == [Grant("half", 2)]
    assert residency.release("half", 15.0) == [Unload("half")], "idle: the other need not wait for its turn to end"
    assert residency.gone("half", 16.0) == [Load("large")]
    assert residency.loaded("large", 17.0) == [Grant("large", 4)]


def test_nobody_overtakes_the_first_in_line(residency: Residency) -> None:
    residency.want("half", memory(50), 1, 0.0)
    residency.loaded("half", 0.0)
    assert residency.want("large", memory(90), 2, 1.0) == []
    assert residency.want("tiny", memory(10), 3, 1.0) == [], "it would fit now, and large would wait for ever"
    residency.release("half", 2.0)
    assert residency.gone("half", 3.0) == [Load("large"), Load("tiny")]


def test_turns_end_when_nobody_waits_any_more(residency: Residency) -> None:
    residency.want("large", memory(90), 1, 0.0)
    residency.loaded("large", 0.0)
    residency.want("half", memory(50), 2, 20.0)
    assert residency.want("large", memory(90), 3, 20.0) == []
    assert residency.give_up("half", 2, 21.0) == [Grant("large", 3)]


def test_what_cannot_fit_is_refused_at_once_with_the_arithmetic(residency: Residency) -> None:
    need = Memory(weights=60_000_000, kv_cache=30_000_000, overhead=11_000_000)
    small = Residency(Footprint(host=100_000_000), quantum=QUANTUM)
    (refusal,) = small.want("huge", need, 1, 0.0)
    assert isinstance(refusal, Refuse)
    assert refusal.too_large
    for figure in ("needs 101 MB", "weights 60 MB", "KV cache 30 MB", "overhead 11 MB", "budget is 100 MB"):
        assert figure in refusal.reason


def test_pinned_models_stay_and_count_in_the_arithmetic(residency: Residency) -> None:
    ready(residency, "half", 0.0)
    residency.pin("half", True, 0.0)
    assert [type(action) for action in residency.want("large", memory(90), 2, 1.0)] == [Refuse]
    assert residency.want("small", memory(40), 3, 1.0) == [Load("small")]
    residency.loaded("small", 2.0)
    residency.release("small", 2.0)
    assert residency.want("other", memory(20), 4, 3.0) == [Unload("small")], (
        "not the pinned one, though used longer ago"
    )


def test_a_failed_load_says_why_and_spoils_nothing(residency: Residency) -> None:
    residency.want("large", memory(90), 1, 0.0)
    assert residency.want("half", memory(50), 2, 0.0) == []
    assert residency.failed("large", "broken", 1.0) == [Refuse("large", 1, "broken"), Load("half")]
    assert residency.resident("large").reason == "broken"
    residency.loaded("half", 2.0)
    residency.release("half", 2.0)
    residency.gone("half", 3.0)
    assert residency.want("large", memory(90), 3, 4.0) == [Load("large")]
    assert residency.loaded("large", 5.0) == [Grant("large", 3)]


def test_unload_drains_and_later_requests_bring_the_model_back(residency: Residency) -> None:
    residency.want("half", memory(50), 1, 0.0)
    residency.loaded("half", 0.0)
    assert residency.unload("half", 1.0) == []
    assert residency.want("half", memory(50), 2, 2.0) == []
    assert residency.release("half", 3.0) == [Unload("half")]
    assert residency.gone("half", 4.0) == [Load("half")]
    assert residency.loaded("half", 5.0) == [Grant("half", 2)]


def test_an_unload_while_loading_serves_those_who_came_before(residency: Residency) -> None:
    residency.want("half", memory(50), 1, 0.0)
    assert residency.unload("half", 1.0) == []
    assert residency.loaded("half", 2.0) == [Grant("half", 1)]
    assert residency.release("half", 3.0) == [Unload("half")]


def test_idle_models_leave_after_their_time() -> None:
    residency = Residency(BUDGET, quantum=QUANTUM, idle_seconds=60)
    ready(residency, "half", 0.0)
    ready(residency, "small", 0.0)
    residency.resident("small").keep_seconds = 0  # never
    assert residency.tick(59.0) == []
    assert residency.next_time(59.0) == 60.0
    assert residency.tick(60.0) == [Unload("half")]
    assert residency.tick(1000.0) == []
    residency.gone("half", 1001.0)
    assert residency.next_time(1001.0) is None


def test_a_process_that_outgrows_its_estimate_makes_idle_models_leave(residency: Residency) -> None:
    ready(residency, "small", 0.0)
    ready(residency, "half", 1.0)
    assert residency.measured("half", Footprint(host=55), 2.0) == []
    assert residency.measured("half", Footprint(host=65), 3.0) == [Unload("small")]
    assert residency.held == Footprint(host=105)


def test_a_crash_keeps_the_room_and_the_line(residency: Residency) -> None:
    residency.want("large", memory(90), 1, 0.0)
    residency.loaded("large", 0.0)
    assert residency.crashed("large", "killed", 1.0) == [Load("large", again=True)]
    assert residency.want("large", memory(90), 2, 1.5) == []
    residency.release("large", 1.6)
    assert residency.loaded("large", 2.0) == [Grant("large", 2)]


def test_host_and_gpu_are_separate_pools() -> None:
    residency = Residency(Footprint(host=200, gpu=1000), quantum=QUANTUM)
    ready(residency, "half", 0.0)
    on_gpu = Memory(weights=900, kv_cache=50, overhead=50, on_gpu=True)
    assert residency.want("gpu", on_gpu, 2, 1.0) == [Load("gpu")]
    assert residency.held == Footprint(host=100, gpu=950)
    assert [type(a) for a in residency.want("gpu2", on_gpu, 3, 2.0)] == [], "waits for the GPU"
    residency.loaded("gpu", 3.0)
    assert residency.release("gpu", 4.0) == [Unload("gpu")], "the host's model need not leave for GPU memory"
