"""What Pagoda as a gateway adds to an engine's own time, beside peers: requests, streams, and memory over time.

The gateway has one core, everything else (upstream, load) the other, so a machine of two cores is needed. The upstream
answers at once: what is measured is the gateway alone. A peer that is not installed is named as not measured.

``LOAD_SECONDS`` is the length of one run, ``SOAK_MINUTES`` that of the soak (0 leaves it out).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from benchmarks.gateway.gateways import LITELLM, Gateway, litellm, pagoda, plain
from benchmarks.gateway.load import Run, press
from benchmarks.gateway.upstream import LOAD_CORE, beating_streams, canned_answers

SECONDS = float(os.environ.get("LOAD_SECONDS", "8"))
SOAK_MINUTES = float(os.environ.get("SOAK_MINUTES", "0"))
STREAMS = 200
RATES = (1000, 2000, 3000, 4000, 5000, 6000, 8000)
ADDED_MS = 10.0
"""A stream's bound: what a gateway may add to the 99th percentile of its frames' time."""

Start = Callable[[str], AbstractContextManager[Gateway]]


async def measure() -> dict[str, Any]:
    """Requests and streams through each gateway, and the soak."""
    with canned_answers() as upstream:
        direct = Gateway(upstream, "", os.getpid())
        figures: dict[str, Any] = {"direct": _requests(direct, "/whole")}
        figures["plain"] = _through(plain, upstream + "/whole")
        figures["pagoda"] = _through(pagoda, upstream + "/stream")
        figures["litellm"] = _through(litellm, upstream + "/whole") if shutil.which(LITELLM) else "not measured"
        if SOAK_MINUTES:
            figures["soak"] = _soak(upstream + "/stream")
    for name in ("plain", "pagoda", "litellm"):
        if isinstance(figures[name], dict):
            figures[name]["added_p50_ms"] = round(figures[name]["p50_at_1_ms"] - figures["direct"]["p50_at_1_ms"], 3)
    if isinstance(figures["litellm"], dict):
        figures["times_litellm"] = round(figures["pagoda"]["rate"] / figures["litellm"]["rate"], 2)
    with beating_streams() as upstream:
        figures["frames"] = {
            "direct": _ceiling(Gateway(upstream, "", os.getpid())),
            "plain": _frames_through(plain, upstream),
            "pagoda": _frames_through(pagoda, upstream),
        }
    return figures


def _through(start: Start, upstream: str) -> dict[str, Any]:
    with start(upstream) as gateway:
        return _requests(gateway)


def _requests(gateway: Gateway, path: str = "") -> dict[str, Any]:
    press(gateway, 16, min(2.0, SECONDS), path=path)
    alone = press(gateway, 1, SECONDS, path=path)
    full = press(gateway, 64, SECONDS, path=path)
    part, pause = _at_share(gateway, full, path)
    in_step = press(gateway, 64, SECONDS, path=path, delay_ms=pause, in_step=True)
    return {
        "rate": round(full.rate),
        "cpu_us": round(full.cpu_us),
        "p50_at_1_ms": round(alone.p50, 3),
        "p99_at_1_ms": round(alone.p99, 3),
        "p99_full_ms": round(full.p99, 2),
        "p50_at_70_ms": round(part.p50, 2),
        "p99_at_70_ms": round(part.p99, 2),
        "share": round(part.rate / full.rate, 2),
        "p99_in_step_ms": round(in_step.p99, 2),
        "errors": alone.errors + full.errors + part.errors + in_step.errors,
    }


def _at_share(gateway: Gateway, full: Run, path: str) -> tuple[Run, float]:
    """Sixty-four connections that together ask 70 % of what the gateway can do, at random moments; and their pause."""
    pause, found = 64 / (0.7 * full.rate) * 1000, full
    for _ in range(3):  # the answers' own time comes on top, and is known only afterwards
        found = press(gateway, 64, SECONDS, path=path, delay_ms=max(1.0, pause))
        share = found.rate / full.rate
        if 0.65 <= share <= 0.75:
            break
        pause *= share / 0.7
    return found, max(1.0, pause)


def _ceiling(gateway: Gateway) -> dict[str, Any]:
    """Frames by offered rate, up to the first rate that is lossy or late."""
    rows = []
    for rate in RATES:
        command = [sys.executable, "-m", "benchmarks.gateway.frames", gateway.url, gateway.key]
        command += [str(STREAMS), str(rate), str(SECONDS)]
        done = subprocess.run(["taskset", "-c", LOAD_CORE, *command], capture_output=True, text=True, check=True)
        row = {"offered": rate, **json.loads(done.stdout)}
        rows.append({key: round(value, 2) for key, value in row.items()})
        if row["lost"] or row["p99"] > 10 * ADDED_MS:
            break
    return {"rows": rows}


def _frames_through(start: Start, upstream: str) -> dict[str, Any]:
    with start(upstream) as gateway:
        return _ceiling(gateway)


def _soak(upstream: str) -> dict[str, Any]:
    """Memory over minutes of load, after a minute to warm up: its growth, by least squares."""
    with pagoda(upstream) as gateway:
        press(gateway, 32, 60)
        points = []
        began = time.monotonic()
        while (minutes := (time.monotonic() - began) / 60) < SOAK_MINUTES:
            points.append((minutes, gateway.resident_bytes() / 2**20))
            press(gateway, 32, 20)
        points.append((minutes, gateway.resident_bytes() / 2**20))
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return {
        "minutes": round(points[-1][0], 1),
        "first_mib": round(points[0][1], 1),
        "last_mib": round(points[-1][1], 1),
        "mib_a_minute": round(slope, 3),
    }
