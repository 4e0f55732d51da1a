"""What the dashboards show of a real run: two Pagodas under load, a real Prometheus, and every panel's series plotted.

``PANELS_SECONDS`` is how long the load lasts, ``PANELS_PLACE`` the picture's file.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.panels.boards import targets
from benchmarks.panels.picture import Panel, draw
from benchmarks.panels.scene import clients, scene
from tests.prometheus_server import Prometheus, prometheus

STEP_SECONDS = 2
RATE_SECONDS = 15


async def measure() -> dict[str, Any]:
    """Run, ask, draw."""
    seconds = float(os.environ.get("PANELS_SECONDS", "180"))
    place = Path(os.environ.get("PANELS_PLACE", "docs/images/panels.png"))
    with tempfile.TemporaryDirectory() as name:
        async with scene(Path(name)) as stage, aiohttp.ClientSession() as session:
            addresses = [url.removeprefix("http://") for url in stage.urls]
            with prometheus(Path(name) / "prometheus", addresses, stage.monitor, STEP_SECONDS) as server:
                began = time.time()
                load = asyncio.create_task(clients(stage, session))
                done, _ = await asyncio.wait({load}, timeout=seconds)
                assert not done, load.exception()
                load.cancel()
                await asyncio.gather(load, return_exceptions=True)
                panels = await collect(server, began + RATE_SECONDS, time.time())
    draw([panel for panel in panels if panel.series], place)
    empty = [f"{panel.board}: {panel.title}" for panel in panels if not panel.series]
    return {"seconds": seconds, "panels": len(panels), "empty": empty}


async def collect(server: Prometheus, began: float, ended: float) -> list[Panel]:
    """Every panel with what its queries gave over the run."""
    panels: dict[tuple[str, str], Panel] = {}
    for target in targets():
        panel = panels.setdefault((target.board, target.panel), Panel(target.board, target.panel, target.unit))
        found = await server.history(target.expanded(RATE_SECONDS), began, ended, STEP_SECONDS)
        for labels, points in found:
            panel.series.append((legend(target.legend, labels), [(at - began, value) for at, value in points]))
    return list(panels.values())


def legend(form: str, labels: dict[str, str]) -> str:
    """A series' name as Grafana writes it."""
    for name, value in labels.items():
        form = form.replace("{{" + name + "}}", value)
    return form
