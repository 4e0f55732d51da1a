"""Twenty times more than the engine can do: goodput, waits and refusals, with admission and without.

The engine is the fake one, which computes a fixed number of requests at once and lets the others wait in order, as real
ones do. Requests come by a clock (open loop), whether or not earlier ones were answered, and their clients leave after
``PATIENCE``: an answer in time is good, a later one is lost work. The same arrivals meet the bare engine (the peer),
the service in process and the service over HTTP. Then one tenant floods at a hundred times the other's rate.

``LOAD_SECONDS`` comes from the environment for a small trial.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.ground import bare_engines, median, scripted_service
from pagoda.core.configuration import load_settings
from pagoda.core.errors import Overloaded
from pagoda.core.types import PRIORITIES, Call, Generation
from pagoda.model.catalog.entry import ModelEntry
from pagoda.model.engines.contract import Engine
from tests.services import Service, fake_model, running

SECONDS = float(os.environ.get("LOAD_SECONDS", "20"))
SLOTS = 4
ANSWER = 0.4
CAPACITY = SLOTS / ANSWER
LOAD = 20
INTERACTIVE_SHARE = 0.1
BOUND = 1.0
"""``admission.wait_seconds``."""
PATIENCE = BOUND + 2 * ANSWER
SMALL_RATE, FLOOD = 2.0, 100
"""Requests a second of the small tenant, a tenth of the engine's; and by how much the other asks more."""
MODEL = fake_model("slots", parallel=SLOTS, slots=SLOTS, first_seconds=ANSWER, text="done")
BRISK = fake_model("brisk", parallel=SLOTS, slots=SLOTS, first_seconds=ANSWER / 2, text="done")
"""For two tenants: twice as fast, so that the small one's few requests are enough for a quantile."""

Who = tuple[str, str]
"""Tenant and priority."""
Ask = Callable[[Who], Awaitable[None]]


class Refused(Exception):
    """The service said no; the seconds after which to ask again, where it said."""

    def __init__(self, retry_after: float | None) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request; ``end`` counts from the start of the load, ``took`` from its planned time."""

    who: Who
    result: str
    end: float
    took: float
    retry_after: float | None = None


def arrivals(rate: float, seed: int, who: Who) -> Iterable[tuple[float, Who]]:
    """Times of requests with exponential gaps."""
    draw, at = random.Random(seed), 0.0
    while (at := at + draw.expovariate(rate)) < SECONDS:
        yield at, who


async def drive(ask: Ask, plan: Iterable[tuple[float, Who]]) -> list[Outcome]:
    """Send every request at its time and wait for the last."""
    outcomes: list[Outcome] = []
    start = time.perf_counter()

    async def one(at: float, who: Who) -> None:
        result, retry_after = "good", None
        try:
            async with asyncio.timeout(start + at + PATIENCE - time.perf_counter()):
                await ask(who)
        except TimeoutError:
            result = "left"
        except Refused as refusal:
            result, retry_after = "refused", refusal.retry_after
        end = time.perf_counter() - start
        outcomes.append(Outcome(who, result, end, end - at, retry_after))

    tasks = []
    for at, who in sorted(plan):
        if (wait := start + at - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one(at, who)))
    await asyncio.gather(*tasks)
    return outcomes


def request(model: str) -> Generation:
    return Generation(model=model, messages=({"role": "user", "content": "hello"},))


def of_engine(engine: Engine) -> Ask:
    wanted = request(engine.model.id)

    async def ask(who: Who) -> None:
        del who  # a bare engine knows nobody
        async with aclosing(engine.generate(wanted)) as events:  # type: ignore[type-var]
            async for _ in events:
                pass

    return ask


def of_service(service: Service, model: str) -> Ask:
    wanted = request(model)

    async def ask(who: Who) -> None:
        assert service.platform._service is not None
        call = Call(tenant=who[0], priority=PRIORITIES[who[1]])
        try:
            async with aclosing(service.platform._service.generate(wanted, call)) as events:  # type: ignore[type-var]
                async for _ in events:
                    pass
        except Overloaded as refusal:
            raise Refused(refusal.retry_after) from refusal

    return ask


def of_url(session: aiohttp.ClientSession, url: str) -> Ask:
    body = {"messages": [{"role": "user", "content": "hello"}]}

    async def ask(who: Who) -> None:
        headers = {"X-Request-Priority": who[1]}
        async with session.post(url + "/v1/chat/completions", json=body, headers=headers) as response:
            await response.read()
            if response.status == 429:
                said = response.headers.get("Retry-After")
                raise Refused(float(said) if said else None)
            assert response.status == 200, await response.text()

    return ask


@asynccontextmanager
async def in_process(model: ModelEntry) -> AsyncIterator[tuple[Service, list[float]]]:
    """A service of this process, and the waits of its admitted interactive requests as it counts them."""
    waits: list[float] = []
    with tempfile.TemporaryDirectory(prefix="ba-") as folder:
        home = Path(folder)
        settings = load_settings(
            {"admission.wait_seconds": str(BOUND)}, {"PAGODA_HOME": str(home / "home"), "HOME": folder}, home
        )
        async with running(settings, [model]) as service:
            service.platform.telemetry.queue_wait = _Waits(waits)  # type: ignore[assignment]
            await of_service(service, model.id)(("warm", "normal"))
            waits.clear()
            yield service, waits


class _Waits:
    """Stands for the histogram of waits and keeps each of the interactive ones."""

    def __init__(self, waits: list[float]) -> None:
        self._waits = waits

    def tally(self, model: str, priority: str) -> _Waits:
        del model
        return self if priority == "interactive" else _Waits([])

    def observe(self, seconds: float) -> None:
        self._waits.append(seconds)


async def closed_loop(ask: Ask, seconds: float = 5.0) -> float:
    """Answers a second with exactly as many clients as slots: what the engine can do on this machine now."""
    end, done = time.perf_counter() + seconds, 0

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await ask(("one", "normal"))
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(SLOTS)))
    return done / (time.perf_counter() - began)


def overload_plan() -> list[tuple[float, Who]]:
    rate = CAPACITY * LOAD
    return [
        *arrivals(rate * INTERACTIVE_SHARE, 1, ("one", "interactive")),
        *arrivals(rate * (1 - INTERACTIVE_SHARE), 2, ("one", "normal")),
    ]


def row_of(label: str, outcomes: Sequence[Outcome], capacity: float, waits: Sequence[float]) -> dict[str, Any]:
    """A row of the table: goodput against capacity, the waits, and what became of the rest.

    Answers count that were begun while the load lasted.
    """
    good = [outcome for outcome in outcomes if outcome.result == "good"]
    goodput = sum(outcome.end <= SECONDS + ANSWER for outcome in good) / SECONDS
    urgent = sum(outcome.who[1] == "interactive" for outcome in good) / len(good) if good else None
    counts = Counter(outcome.result for outcome in outcomes)
    refused = [outcome for outcome in outcomes if outcome.result == "refused"]
    row = {
        "offered_s": rounded(len(outcomes) / SECONDS),
        "goodput_s": rounded(goodput),
        "goodput_to_capacity": rounded(goodput / capacity),
        "interactive_share_of_good": rounded(urgent),
        "interactive_wait_p99_s": rounded(quantile(waits, 0.99)),
        "refused": counts["refused"],
        "refused_with_retry_after": sum(outcome.retry_after is not None for outcome in refused),
        "refused_after_p50_ms": rounded(quantile([1000 * outcome.took for outcome in refused], 0.5)),
        "left": counts["left"],
    }
    print(f"{label:22}" + "".join(f"{value!s:>12}" for value in row.values()), flush=True)
    return {f"{label.replace(' ', '_')}_{name}": value for name, value in row.items() if value is not None}


async def overload() -> dict[str, Any]:
    """The same arrivals on the bare engine, through the service, and over HTTP."""
    names = ("offered/s", "good/s", "/capacity", "urgent", "p99 wait s", "refused", "Retry-After", "after ms", "left")
    print(f"{'':22}" + "".join(f"{name:>12}" for name in names))
    async with bare_engines([MODEL], {}) as (engine,):
        capacity = await closed_loop(of_engine(engine))
        outcomes = await drive(of_engine(engine), overload_plan())
    figures: dict[str, Any] = {"capacity_s": rounded(capacity)} | row_of(
        "bare engine", outcomes, capacity, _waits_of(outcomes)
    )
    async with in_process(MODEL) as (service, waits):
        figures |= row_of("service", await drive(of_service(service, MODEL.id), overload_plan()), capacity, waits)
    with scripted_service([MODEL], {"PAGODA_ADMISSION_WAIT_SECONDS": str(BOUND)}) as url:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await of_url(session, url)(("one", "normal"))
            outcomes = await drive(of_url(session, url), overload_plan())
    return figures | row_of("service over HTTP", outcomes, capacity, _waits_of(outcomes))


def _waits_of(outcomes: Sequence[Outcome]) -> list[float]:
    """Waits of interactive requests as their clients see them: all of the answer's time but the engine's own."""
    urgent = [outcome for outcome in outcomes if outcome.who[1] == "interactive" and outcome.result == "good"]
    return [outcome.took - ANSWER for outcome in urgent]


async def tenants() -> dict[str, Any]:
    """A small tenant alone, and beside one that floods; lost requests count as infinitely late."""
    small = list(arrivals(SMALL_RATE, 3, ("small", "normal")))
    flood = list(arrivals(SMALL_RATE * FLOOD, 4, ("flood", "normal")))
    figures: dict[str, Any] = {}
    print(f"\n{'small tenant, p95 s':22}{'alone':>12}{'flooded':>12}{'ratio':>12}{'lost':>12}{'flood good':>12}")
    async with bare_engines([BRISK], {}) as (engine,):
        figures |= await _flooded("bare engine", of_engine(engine), small, flood)
    async with in_process(BRISK) as (service, _):
        figures |= await _flooded("service", of_service(service, BRISK.id), small, flood)
    return figures


async def _flooded(
    label: str, ask: Ask, small: list[tuple[float, Who]], flood: list[tuple[float, Who]]
) -> dict[str, Any]:
    p95: list[float] = []
    for plan in (small, [*small, *flood]):
        outcomes = await drive(ask, plan)
        mine = [outcome for outcome in outcomes if outcome.who[0] == "small"]
        p95.append(quantile([o.took if o.result == "good" else math.inf for o in mine], 0.95) or math.inf)
    lost = sum(outcome.result != "good" for outcome in mine)
    flooder = sum(outcome.result == "good" for outcome in outcomes) - len(mine) + lost
    ratio = p95[1] / p95[0]
    cells = [p95[0], p95[1], ratio]
    print(f"{label:22}" + "".join(f"{cell:>12.3f}" for cell in cells) + f"{lost:>12}{flooder:>12}", flush=True)
    values = {
        "small_p95_alone_s": cells[0],
        "small_p95_flooded_s": cells[1],
        "small_p95_ratio": ratio,
    }
    key = label.replace(" ", "_")
    finite = {f"{key}_{name}": rounded(value) if math.isfinite(value) else "lost" for name, value in values.items()}
    return finite | {f"{key}_small_lost": lost, f"{key}_small_sent": len(mine)}


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value that this share of all do not pass."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else None


def rounded(value: float | None) -> float | None:
    """To four significant digits."""
    return None if value is None else median([value])


async def measure() -> dict[str, Any]:
    """The tables, and their figures."""
    setup = {"slots": SLOTS, "answer_s": ANSWER, "load": LOAD, "wait_bound_s": BOUND, "seconds": SECONDS}
    return {**setup, **await overload(), **await tenants()}
