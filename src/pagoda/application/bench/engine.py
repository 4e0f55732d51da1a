"""The measurement of one model at one address: learn what the target takes, warm it, keep each load, make figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

import pagoda
from pagoda.application.bench.driving import Measured, drive
from pagoda.application.bench.figures import Bound, figures
from pagoda.application.bench.prompts import Request
from pagoda.application.bench.schedule import Closed, Length, Load
from pagoda.application.bench.target import Target

_CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured."""

    request: Request
    loads: tuple[Load, ...]
    length: Length
    warmup: int = 0
    """Requests before the first load that are not counted."""
    bound: Bound | None = None
    timeout_seconds: float = 600.0


@dataclass(slots=True)
class Report:
    """What was found so far; complete unless ``interrupted``."""

    data: dict[str, Any]
    measured: list[Measured] = field(default_factory=list)
    interrupted: bool = False


Watch = Callable[[str, Measured, int | None], None]
"""Is told what is being measured, what there is of it already, and how many requests it will have."""


async def bench_engine(url: str, key: str, plan: Plan, report: Report, watch: Watch) -> None:
    """Measure; ``report`` grows meanwhile. Cancelled, it holds what there was."""
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    async with aiohttp.ClientSession(
        headers=headers,
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=plan.timeout_seconds, sock_connect=_CONNECT_SECONDS),
        read_bufsize=2**18,
    ) as session:
        target = Target(url, session)
        request = await target.learn(plan.request)
        report.data |= _about(url, request)
        asked = await _warm(target, request, plan, watch)
        for load in plan.loads:
            measured = Measured(load)
            report.measured.append(measured)
            watch(str(load), measured, plan.length.requests)
            peak: dict[str, int] = {}
            try:
                async with target.watched(request.model) as peak:
                    await drive(
                        session,
                        target.path(request),
                        lambda number, first=asked: request.body(first + number),  # type: ignore[misc]
                        load,
                        plan.length,
                        request.seed,
                        measured,
                    )
            finally:
                report.interrupted = report.interrupted or measured.interrupted
                report.data["loads"].append(figures(measured, plan.bound) | {"memory_bytes": peak or None})
            asked += len(measured.timelines)


async def _warm(target: Target, request: Request, plan: Plan, watch: Watch) -> int:
    """Requests that are not counted, as many at once as the first load will have; gives their number."""
    if not plan.warmup:
        return 0
    at_once = plan.loads[0].concurrency if isinstance(plan.loads[0], Closed) else plan.warmup
    measured = Measured(Closed(min(at_once, plan.warmup)))
    watch("warm-up", measured, plan.warmup)
    await drive(
        target.session, target.path(request), request.body, measured.load, Length(plan.warmup), request.seed, measured
    )
    return plan.warmup


def _about(url: str, request: Request) -> dict[str, Any]:
    return {
        "schema": 1,
        "pagoda": pagoda.__version__,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "url": url,
        "model": request.model,
        "endpoint": request.endpoint,
        "wanted_tokens": None if request.dataset else {"input": request.input_tokens, "output": request.output_tokens},
        "input_exact": request.recipe.exact and not request.dataset,
        "shared_prefix": request.shared_prefix,
        "ignore_eos": request.ignore_eos,
        "temperature": request.temperature,
        "seed": request.seed,
        "loads": [],
    }


async def until_interrupted(work: Any, stop: asyncio.Event) -> None:
    """Do the work, or cancel it when ``stop`` is set."""
    task, stopper = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, stopper), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return
        task.result()
    finally:
        for each in (task, stopper):
            each.cancel()
        await asyncio.gather(task, stopper, return_exceptions=True)
