"""Where a measurement goes: to a given address, or to this home's service, found or started for as long as needed."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from pagoda.application.bench.engine import Plan, Report, Watch, bench_engine, until_interrupted
from pagoda.application.client import home_door
from pagoda.application.joining import find_or_start
from pagoda.application.loop import loop_factory
from pagoda.core.errors import InvalidRequest
from pagoda.core.settings import Settings
from pagoda.logic.inference.joined import JoinedDoor
from pagoda.model.catalog.entry import LocalPath, ModelEntry
from pagoda.model.catalog.opening import open_shelf
from pagoda.model.engines import engine_kind
from pagoda.service.lifecycle import Order


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where to measure. Without ``url`` it is this home's service, there on ``engine`` if one is named."""

    url: str = ""
    key: str = ""
    engine: str = ""


def measure(settings: Settings, environment: Mapping[str, str], place: Place, plan: Plan, watch: Watch) -> Report:
    """Measure; Ctrl-C ends it early with what there is so far, a second one at once."""
    report = Report({})

    async def work() -> None:
        if place.url:
            await bench_engine(_with_version(place.url), place.key, plan, report, watch)
            return
        async with _own(settings, environment, place.engine, plan) as (url, own_plan):
            await bench_engine(url, "", own_plan, report, watch)

    async def attended() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def interrupt() -> None:
            report.interrupted = True
            loop.remove_signal_handler(signal.SIGINT)  # the second one is Python's own again
            stop.set()

        loop.add_signal_handler(signal.SIGINT, interrupt)
        await until_interrupted(work(), stop)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(attended())
    return report


def _with_version(url: str) -> str:
    url = url.rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise InvalidRequest(f"The address {url!r} must begin with http:// or https://.", param="url")
    return url if url.endswith("/v1") else url + "/v1"


@asynccontextmanager
async def _own(
    settings: Settings, environment: Mapping[str, str], engine: str, plan: Plan
) -> AsyncIterator[tuple[str, Plan]]:
    """This home's service with the model loaded, held for the block's duration."""
    default = settings.defaults.embedding if plan.request.endpoint == "embeddings" else settings.defaults.chat
    entry = open_shelf(settings).catalog.resolve(plan.request.model or default)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(home_door(settings, environment))
        if engine and engine != entry.engine:
            entry = await stack.enter_async_context(_on_engine(settings, environment, entry, engine))
        address = await find_or_start(settings, environment)
        request = dataclasses.replace(plan.request, model=entry.id)
        yield address.url + "/v1", dataclasses.replace(plan, request=request)


@asynccontextmanager
async def _on_engine(
    settings: Settings, environment: Mapping[str, str], entry: ModelEntry, engine: str
) -> AsyncIterator[ModelEntry]:
    """A copy of the entry on another engine, in the catalog for the block's duration, out of memory after it."""
    shelf = open_shelf(settings)
    kind = engine_kind(engine)
    path = await asyncio.to_thread(shelf.store.locate, entry)
    if path is None or kind.runs != "process":
        raise InvalidRequest(f"{entry.id} cannot run on {engine}: there is no file of it to hand over.", param="engine")
    copy = dataclasses.replace(
        entry, id=f"{entry.id}-on-{engine}", engine=engine, source=LocalPath(path=str(path)), aliases=(), builtin=False
    )
    shelf.catalog.add(copy)
    try:
        yield copy
    finally:
        door = JoinedDoor(lambda: find_or_start(settings, environment))
        try:
            async for _ in door.steer(Order(action="unload", model=copy.id)):
                pass
        finally:
            await door.close()
            shelf.catalog.remove(copy.id)
