"""This process's part in the metrics of its home: a joined one tells the owner of the engines, which adds up."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from pagoda.core.errors import PagodaError
from pagoda.core.settings import Settings
from pagoda.logic.inference.joined import JoinedDoor
from pagoda.service.dispatch import ModelService
from pagoda.service.fleet import REPORT_SECONDS, snapshot
from pagoda.service.gpus import GpuMetrics
from pagoda.service.hardware import free_bytes
from pagoda.service.telemetry import Bounds, Telemetry
from pagoda.service.traces import open_traces

logger = logging.getLogger(__name__)

_FAREWELL_SECONDS = 1.0


def open_telemetry(settings: Settings) -> Telemetry:
    """The metrics of this process, with those that are looked up when they are asked for."""
    chosen = settings.telemetry
    traces = open_traces(chosen.otlp_url, chosen.trace_share)
    telemetry = Telemetry(Bounds(chosen.goodput_first_token_seconds, chosen.goodput_token_seconds), traces)
    telemetry.home_free.set_function(lambda: free_bytes(settings.home))
    GpuMetrics(telemetry.registry)
    return telemetry


class Counting:
    """What ``/metrics`` shows, wherever in the home it is asked. ``fresh`` says whether keys are renewed here."""

    def __init__(self, telemetry: Telemetry, fresh: Callable[[], bool]) -> None:
        self.name = secrets.token_hex(8)
        """Of this process among those of its home."""
        self._telemetry = telemetry
        telemetry.keys_fresh.set_function(fresh)
        self._joined: JoinedDoor | None = None
        self._telling: asyncio.Task[None] | None = None

    def join(self, door: JoinedDoor) -> None:
        """Tell the process that owns the engines from now on."""
        self._joined = door
        self._telling = asyncio.create_task(self._tell_now_and_then())

    async def expose(self, service: ModelService | None) -> bytes:
        """The metrics of all processes of this home, in Prometheus's text format."""
        if self._joined is not None:
            return await self._tell(self._joined)
        if service is not None:
            service.states()
            await service.look()
        return self._telemetry.expose()

    async def close(self) -> None:
        """Tell a last time."""
        await asyncio.to_thread(self._telemetry.traces.close)
        if self._telling is None or self._joined is None:
            return
        self._telling.cancel()
        await asyncio.gather(self._telling, return_exceptions=True)
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._tell(self._joined)
        except (PagodaError, TimeoutError) as error:
            logger.debug("the last metrics were not told: %s", error)

    async def _tell(self, door: JoinedDoor) -> bytes:
        return await door.tell_metrics(self.name, snapshot(self._telemetry.registry))

    async def _tell_now_and_then(self) -> None:
        while self._joined is not None:
            await asyncio.sleep(REPORT_SECONDS)
            try:
                await self._tell(self._joined)
            except PagodaError as error:
                logger.debug("metrics were not told: %s", error)
