"""Texts of different requests go through the model together; a bad one concerns only who sent it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from pagoda.model.engines.gathering import Gathering, Wanted


class Model:
    """Counts passes; the first one waits until it is let go. Token 13 breaks a pass."""

    def __init__(self) -> None:
        self.passes: list[int] = []
        self.go = threading.Event()
        self.abandoned = 0

    def embed(self, inputs: Sequence[Sequence[int]], wanted: Wanted) -> list[bytes]:
        self.go.wait(10)
        if not wanted():
            self.abandoned += 1
            return []
        self.passes.append(len(inputs))
        if any(13 in ids for ids in inputs):
            raise IndexError("no such token")
        return [bytes(ids) for ids in inputs]


async def test_what_comes_during_a_pass_goes_into_the_next_together() -> None:
    model = Model()
    gathering = Gathering(model.embed)
    requests = [asyncio.create_task(gathering.embed([[number], [number, 1]])) for number in range(10)]
    await asyncio.sleep(0.05)
    late = [asyncio.create_task(gathering.embed([[number + 20]])) for number in range(10)]
    await asyncio.sleep(0)
    model.go.set()
    answers = await asyncio.gather(*requests, *late)
    assert answers[:10] == [[bytes([number]), bytes([number, 1])] for number in range(10)]
    assert answers[10:] == [[bytes([number + 20])] for number in range(10)]
    assert model.passes == [20, 10]


async def test_a_bad_input_fails_its_own_request_alone() -> None:
    model = Model()
    gathering = Gathering(model.embed)
    model.go.set()
    requests = [asyncio.create_task(gathering.embed([[number]])) for number in (1, 13, 2)]
    answers = await asyncio.gather(*requests, return_exceptions=True)
    assert answers[0] == [b"\x01"]
    assert isinstance(answers[1], IndexError)
    assert answers[2] == [b"\x02"]


async def test_a_request_that_left_before_its_pass_costs_nothing() -> None:
    model = Model()
    gathering = Gathering(model.embed)
    first = asyncio.create_task(gathering.embed([[1]]))
    await asyncio.sleep(0.05)
    leaver = asyncio.create_task(gathering.embed([[2]]))
    stayer = asyncio.create_task(gathering.embed([[3]]))
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.sleep(0)
    model.go.set()
    assert await first == [b"\x01"]
    assert await stayer == [b"\x03"]
    assert model.passes == [1, 1]
    with pytest.raises(asyncio.CancelledError):
        await leaver


async def test_a_pass_that_nobody_waits_for_any_more_can_be_given_up() -> None:
    model = Model()
    gathering = Gathering(model.embed)
    leavers = [asyncio.create_task(gathering.embed([[number]])) for number in (1, 2)]
    await asyncio.sleep(0.05)
    for leaver in leavers:
        leaver.cancel()
    stayer = asyncio.create_task(gathering.embed([[3]]))
    await asyncio.sleep(0)
    model.go.set()
    assert await stayer == [b"\x03"]
    assert model.abandoned == 1
    assert model.passes == [1]


async def test_a_pass_is_bounded() -> None:
    model = Model()
    gathering = Gathering(model.embed)
    model.go.set()
    await asyncio.gather(*(gathering.embed([[1]] * 100) for _ in range(5)))
    assert max(model.passes) <= 256
    assert sum(model.passes) == 500
