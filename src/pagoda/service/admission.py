"""Admission: every model's bounded line (see ``line``), with futures, deadlines and metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import lru_cache
from types import TracebackType

from pagoda.core.errors import ModelError, ModelTimeout, Overloaded
from pagoda.core.settings import Admission as AdmissionSettings
from pagoda.core.types import PRIORITIES, Call
from pagoda.model.catalog.entry import ModelEntry, host_id
from pagoda.service.line import Line, Refusal, Turn, Waiter
from pagoda.service.note import SLOT, Note
from pagoda.service.telemetry import Telemetry

QUEUE_FULL, QUEUE_TIMEOUT, DEADLINE = "queue_full", "queue_timeout", "deadline_unreachable"


class Admission:
    """The gates of all models of this service process."""

    def __init__(
        self, settings: AdmissionSettings, capacity: Callable[[ModelEntry], int], telemetry: Telemetry
    ) -> None:
        self._settings = settings
        self._capacity = capacity
        self._telemetry = telemetry
        self._gates: dict[str, Gate] = {}

    def gate(self, model: ModelEntry) -> Gate:
        """The gate of the model's engine, which adapters share with their base."""
        name, capacity = host_id(model), self._capacity(model)
        gate = self._gates.get(name)
        if gate is not None and gate.line.capacity != capacity:
            gate.resize(capacity)
        if gate is None:
            line = Line(
                capacity,
                self._settings.queue,
                wait_seconds=self._settings.wait_seconds,
                aging_seconds=self._settings.aging_seconds,
            )
            gate = self._gates[name] = Gate(name, line, self._telemetry, self._settings.wait_seconds)
        return gate

    def report(self) -> None:
        """Set the gauges to what they are now."""
        for gate in self._gates.values():
            gate.report()


class Gate:
    """The line before one model."""

    def __init__(self, name: str, line: Line, telemetry: Telemetry, wait_seconds: float) -> None:
        self.name = name
        self.line = line
        self._telemetry = telemetry
        self._wait_seconds = wait_seconds
        self._futures: dict[Waiter, asyncio.Future[None]] = {}

    def resize(self, capacity: int) -> None:
        """Change how many requests may be under way."""
        self._tell(self.line.resize(capacity, time.monotonic()))

    def admitted(self, call: Call, cost: int = 1, *, shared: bool = False) -> Stay:
        """A block that waits for a turn and holds ``cost`` slots inside; it gives what is called when the engine
        begins to compute.

        Work that is ``shared`` goes on past the call's deadline: whoever else waits for it may have more time.

        Entering raises ``Overloaded`` (with the time after which to try again) when the line is full or would take too
        long, and ``ModelTimeout`` when the deadline passes in line.
        """
        waiter = Waiter(call.tenant, call.priority, cost)
        waiter.since = time.monotonic()
        if call.deadline is not None:
            waiter.limit = waiter.since + call.deadline - time.time()
        return Stay(self, waiter, shared)

    def waited(self, priority: int, seconds: float) -> None:
        """A request was admitted after that time."""
        self._telemetry.queue_wait.tally(self.name, class_of(priority)).observe(seconds)

    async def enter(self, waiter: Waiter, now: float, *, shared: bool) -> None:
        """Come to the line, and wait for the turn."""
        turn = self.line.arrive(waiter, now)
        if turn.admitted == (waiter,) and not turn.refused:
            return
        future = self._futures[waiter] = asyncio.get_running_loop().create_future()
        self._tell(turn)
        own = None if shared else waiter.limit
        limits = [limit for limit in (own, self._wait_limit(waiter)) if limit is not None]
        try:
            async with asyncio.timeout(min(limits) - now if limits else None):
                await future
        except (TimeoutError, asyncio.CancelledError) as end:
            if waiter.place == "admitted":  # this very moment
                self._tell(self.line.done(waiter, time.monotonic(), counts=False))
            elif waiter.place == "line":
                self.line.leave(waiter)
                self._tell(self.line.advance(time.monotonic()))
            if isinstance(end, TimeoutError):
                raise self._late(waiter) from end
            raise
        finally:
            del self._futures[waiter]

    def _wait_limit(self, waiter: Waiter) -> float | None:
        patient = not self._wait_seconds or waiter.priority >= PRIORITIES["batch"]
        return None if patient else waiter.since + self._wait_seconds

    def done(self, waiter: Waiter, *, counts: bool) -> None:
        """An admitted request has ended."""
        self._tell(self.line.done(waiter, time.monotonic(), counts=counts))

    def _tell(self, turn: Turn) -> None:
        """Wake those whose wait is over."""
        for waiter in turn.admitted:
            future = self._futures.get(waiter)
            if future is not None and not future.done():
                future.set_result(None)
        for waiter, why in turn.refused:
            future = self._futures.get(waiter)
            if future is not None and not future.done():
                future.set_exception(self._refusal(why))

    def _refusal(self, why: Refusal) -> ModelError:
        self._telemetry.queue_refusals.labels(self.name, why).inc()
        seconds = self.line.retry_after()
        ask_again = f"Ask again in {seconds:.0f} s."
        if why == "deadline":
            text = f"{self.name} is too busy to answer before the request's deadline. {ask_again}"
            return Overloaded(text, code=DEADLINE, retry_after=seconds)
        if why == "wait":
            text = f"{self.name} is so busy that this request would wait over {self._wait_seconds:g} s. {ask_again}"
            return Overloaded(text, code=QUEUE_FULL, retry_after=seconds)
        text = f"{self.name} has {self.line.waiting} requests waiting and takes no more now. {ask_again}"
        return Overloaded(text, code=QUEUE_FULL, retry_after=seconds)

    def _late(self, waiter: Waiter) -> ModelError:
        self._telemetry.queue_refusals.labels(self.name, "late").inc()
        if waiter.limit is not None and time.monotonic() >= waiter.limit:
            return ModelTimeout(f"The request's deadline passed while it waited for {self.name}.")
        seconds = self.line.retry_after()
        text = f"{self.name} had no room for this request within {self._wait_seconds:g} s."
        return Overloaded(f"{text} Ask again in {seconds:.0f} s.", code=QUEUE_TIMEOUT, retry_after=seconds)

    def report(self) -> None:
        """Set the gauges to what they are now."""
        depths = self.line.depths()
        for name in PRIORITIES:
            depth = sum(count for priority, count in depths.items() if class_of(priority) == name)
            self._telemetry.queue_depth.labels(self.name, name).set(depth)


class Stay:
    """A block inside a gate. A class of its own, since a generator would cost each request its price."""

    def __init__(self, gate: Gate, waiter: Waiter, shared: bool) -> None:
        self._gate = gate
        self._waiter = waiter
        self._shared = shared
        self._note: Note | None = None

    async def __aenter__(self) -> Callable[[], None]:
        waiter, came = self._waiter, self._waiter.since
        await self._gate.enter(waiter, came, shared=self._shared)
        waited = time.monotonic() - came
        self._gate.waited(waiter.priority, waited)
        if (note := SLOT.get()) is not None:
            note.queue += waited
            note.ask()  # an engine that has to be started first is waited for, too
            self._note = note
        return self._begin

    def _begin(self) -> None:
        self._gate.line.begin(self._waiter, time.monotonic())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gate.done(self._waiter, counts=error is None)
        if self._note is not None:
            self._note.answered()


@lru_cache(maxsize=256)
def class_of(priority: int) -> str:
    """The name of the class that a priority falls in."""
    return next((name for name, start in reversed(list(PRIORITIES.items())) if priority >= start), "interactive")
