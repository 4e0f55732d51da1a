"""Single flight: any interleaving of joining, leaving, items, end and failure leaves each waiter with its due."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pagoda.core.errors import Unavailable
from pagoda.service.cache.flight import Flight


class Flights(RuleBasedStateMachine):
    """One flight, driven step by step, beside what should be true of it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.told: list[int] = []
        self.state = "flying"
        self.kept: list[list[int]] = []
        self.over = 0
        self.closed = False
        self.readers: dict[int, tuple[asyncio.Task[None], list[int]]] = {}
        self.outcomes: dict[int, str] = {}
        self.count = 0

    def settle(self) -> None:
        """Let everything that can run, run."""

        async def rest() -> None:
            for _ in range(20):
                await asyncio.sleep(0)

        self.loop.run_until_complete(rest())

    async def produce(self) -> AsyncIterator[int]:
        try:
            while True:
                item = await self.source.get()
                if item is None:
                    return
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed = True

    async def keep(self, items: Sequence[int]) -> None:
        self.kept.append(list(items))

    @initialize()
    def begin(self) -> None:
        async def make() -> Flight[int]:
            self.source: asyncio.Queue[Any] = asyncio.Queue()

            def over(flight: Flight[int]) -> None:
                self.over += 1

            flight = Flight(self.produce, self.keep, over)
            flight.join()
            return flight

        self.flight = self.loop.run_until_complete(make())
        self.read(joined=True)

    def read(self, *, joined: bool = False) -> None:
        number, self.count = self.count, self.count + 1
        got: list[int] = []
        if not joined:
            self.flight.join()

        async def reader() -> None:
            try:
                async for item in self.flight.items():
                    got.append(item)
                self.outcomes[number] = "end"
            except Unavailable as error:
                self.outcomes[number] = error.message
            finally:
                self.flight.leave()

        self.readers[number] = (self.loop.create_task(reader()), got)
        self.settle()

    @precondition(lambda self: self.state in ("flying", "complete"))
    @rule()
    def join(self) -> None:
        self.read()

    @precondition(lambda self: self.state in ("failed", "abandoned"))
    @rule()
    def wait(self) -> None:
        self.settle()

    @precondition(lambda self: self.state == "flying")
    @rule(item=st.integers(0, 9))
    def tell(self, item: int) -> None:
        self.told.append(item)
        self.source.put_nowait(item)
        self.settle()

    @precondition(lambda self: self.state == "flying" and self.readers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.readers)))
        task, _ = self.readers.pop(number)
        task.cancel()
        self.settle()
        if not self.readers:
            self.state = "abandoned"

    @precondition(lambda self: self.state == "flying")
    @rule()
    def end(self) -> None:
        self.source.put_nowait(None)
        self.settle()
        self.state = "complete"

    @precondition(lambda self: self.state == "flying")
    @rule()
    def fail(self) -> None:
        self.source.put_nowait(Unavailable("it broke"))
        self.settle()
        self.state = "failed"

    @invariant()
    def everybody_has_the_same(self) -> None:
        for number, (task, got) in self.readers.items():
            assert got == self.told
            assert task.done() == (self.state != "flying")
            if task.done():
                assert self.outcomes[number] == ("end" if self.state == "complete" else "it broke")

    @invariant()
    def the_work_lives_as_long_as_anybody_waits(self) -> None:
        assert self.closed == (self.state != "flying")
        assert bool(self.over) == (self.state != "flying"), "nobody new joins what has ended"
        assert self.flight.waiting == (len(self.readers) if self.state == "flying" else 0)

    @invariant()
    def only_whole_answers_are_kept(self) -> None:
        assert self.kept == ([self.told] if self.state == "complete" else [])

    def teardown(self) -> None:
        async def end() -> None:
            for task, _ in self.readers.values():
                task.cancel()
            if hasattr(self, "flight"):
                await self.flight.close()
            await asyncio.gather(*(task for task, _ in self.readers.values()), return_exceptions=True)
            await asyncio.get_running_loop().shutdown_asyncgens()

        self.loop.run_until_complete(end())
        self.loop.close()


Flights.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestFlights = Flights.TestCase


async def test_a_flight_that_is_closed_tells_those_who_wait() -> None:
    async def never() -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 1

    async def keep(items: Sequence[int]) -> None:
        raise AssertionError("nothing to keep")

    flight = Flight(never, keep, lambda flight: None)
    flight.join()
    waiter = asyncio.ensure_future(anext(flight.items()))
    await flight.close()  # before its first step
    with pytest.raises(Unavailable, match="stopped in mid-answer"):
        await waiter
