"""What running engines tell of their load, fetched when metrics are asked for: nothing polls between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from pagoda.core.errors import ModelError
from pagoda.model.engines.contract import Engine, Vitals
from pagoda.service.telemetry import Telemetry

logger = logging.getLogger(__name__)

_ASK_SECONDS = 0.5


async def look(engines: Mapping[str, Engine], telemetry: Telemetry) -> None:
    """Set the gauges of the engines' load; one that does not answer in time has none."""
    found = await asyncio.gather(*map(_ask, engines.values()))
    telemetry.engine_requests.clear()
    telemetry.kv_used.clear()
    for model, vitals in zip(engines, found, strict=True):
        if vitals is None:
            continue
        telemetry.engine_requests.labels(model, "running").set(vitals.running)
        telemetry.engine_requests.labels(model, "waiting").set(vitals.waiting)
        if vitals.kv_used is not None:
            telemetry.kv_used.labels(model).set(vitals.kv_used)


async def _ask(engine: Engine) -> Vitals | None:
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            return await engine.vitals()
    except (ModelError, TimeoutError) as error:
        logger.debug("%s does not tell of its load: %s", engine.model.id, error)
        return None
