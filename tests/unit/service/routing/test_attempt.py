"""Waiting for a replica that may be lost meanwhile, and the short way through a beat."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.errors import Unavailable
from pagoda.core.settings import Routing
from pagoda.core.types import Generation
from pagoda.model.catalog.entry import ModelEntry, RemoteAddress
from pagoda.model.engines.openai import STOPPED
from pagoda.service.routing.breaker import Breaker
from pagoda.service.routing.health import Watch
from pagoda.service.routing.pulse import Pulse
from pagoda.service.routing.replica import Attempt, Replica


@pytest.fixture
def attempt() -> Attempt:
    source = RemoteAddress(url="http://127.0.0.1:1/v1", model="m", key_env="")
    replica = Replica(
        id="one",
        entry=ModelEntry(id="m", task="chat", engine="remote", source=source),
        weight=1.0,
        zone="",
        origin="settings",
        breaker=Breaker({"death": 1, "timeout": 1, "failure": 1}, 1.0),
        pulse=Pulse(1.0, 2, 0.0),
    )
    return replica.begin()


async def never() -> None:
    await asyncio.Event().wait()


async def waiting(attempt: Attempt) -> asyncio.Task[None]:
    """A task that has begun to wait for the replica."""
    task = asyncio.create_task(attempt.hear(never))
    await asyncio.sleep(0)
    return task


async def test_who_waits_for_a_lost_replica_is_told(attempt: Attempt) -> None:
    task = await waiting(attempt)
    attempt.replica.sink("dead", "it takes no connections")
    with pytest.raises(Unavailable) as told:
        await task
    assert told.value.code == STOPPED
    with pytest.raises(Unavailable):  # nor does anybody begin to wait; what would be asked is not even made
        await attempt.hear(never)


async def test_a_client_that_leaves_is_not_held_by_the_loss(attempt: Attempt) -> None:
    task = await waiting(attempt)
    attempt.sever()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelling_alone_says_nothing_of_the_replica(attempt: Attempt) -> None:
    task = await waiting(attempt)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not attempt.severed


async def test_only_the_wait_is_ended_and_never_what_the_task_does_else(attempt: Attempt) -> None:
    async def word() -> str:
        return "word"

    async def reader() -> str:
        said = await attempt.hear(word)
        attempt.sever()  # while the client is being told
        await asyncio.sleep(0)
        return said

    assert await asyncio.create_task(reader()) == "word"


async def test_a_deadline_around_the_wait_stays_a_deadline(attempt: Attempt) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await attempt.hear(never)
    assert not attempt.severed


async def test_after_the_loss_the_task_can_go_on(attempt: Attempt) -> None:
    async def reader() -> int:
        try:
            await attempt.hear(never)
        except Unavailable:
            await asyncio.sleep(0)
        task = asyncio.current_task()
        return task.cancelling() if task is not None else -1

    task = asyncio.create_task(reader())
    await asyncio.sleep(0)
    attempt.sever()
    assert await task == 0


class Whole(Pulse):
    """The rules of a beat without the short way."""

    def beat(self, now: float, *, idle: bool = False) -> None:
        gap = now - self._last
        if self.wedged:
            gap = min(gap, self.patience(now) / 2)
        self._last, self.missed = now, 0
        if not idle and gap >= self._pace(now):
            self._worst, self._worst_at = gap, now


@given(st.lists(st.tuples(st.floats(0, 20), st.sampled_from(["beat", "idle", "look"])), max_size=40))
def test_the_short_way_through_a_beat_changes_no_judgement(steps: list[tuple[float, str]]) -> None:
    now = 0.0
    quick, whole = Pulse(3.0, 2, now), Whole(3.0, 2, now)
    for seconds, step in steps:
        now += seconds
        for pulse in (quick, whole):
            if step == "look":
                pulse.look(now)
            else:
                pulse.beat(now, idle=step == "idle")
        assert quick.patience(now) == pytest.approx(whole.patience(now))
        assert (quick.missed, quick.wedged) == (whole.missed, whole.wedged)


@pytest.mark.parametrize(("length", "left"), [(0, True), (1500, True), (15_000, False)])
def test_an_address_is_given_time_to_read(attempt: Attempt, length: int, left: bool) -> None:
    """Silent for thirty seconds, where a second would do for a short prompt and a hundred more for a long one."""
    replica = attempt.replica
    attempt.request = Generation(model="m", prompt="x" * length)
    replica.pulse.rest(100.0)
    watch = Watch(cast("Any", None), cast("Any", None), Routing(misses=2))
    pool = cast("Any", SimpleNamespace(name="pool", notice=lambda: None))
    for second in (129.0, 130.0):
        watch._judge(pool, replica, second)
    assert (replica.health == "wedged") == left


def test_text_that_has_come_ends_the_time_to_read(attempt: Attempt) -> None:
    attempt.request = Generation(model="m", messages=({"role": "user", "content": "x" * 900},))
    assert attempt.replica.unread() == 900
    attempt.heard = True
    assert attempt.replica.unread() == 0
