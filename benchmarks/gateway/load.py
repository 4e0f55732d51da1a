"""Load on a gateway by wrk from the other core: answers a second, and what a gateway adds to latency."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway.gateways import Gateway
from benchmarks.gateway.upstream import LOAD_CORE

_SCRIPT = """
wrk.method = "POST"
wrk.path = "{path}/v1/chat/completions"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
local number, salt = 0, "{salt}"
function request()
  number = number + 1
  return wrk.format(nil, nil, nil, '{{"model":"mock","messages":[{{"role":"user","content":"question ' .. salt ..
    number .. '"}}],"max_tokens":64,"temperature":0}}')
end
function delay() return {delay} end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration,
    e.status + e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Run:
    """What one run of wrk saw. Latencies in milliseconds."""

    rate: float
    errors: int
    p50: float
    p95: float
    p99: float
    cpu_us: float
    """Processor time of the gateway for each answer, microseconds."""


def press(
    gateway: Gateway, connections: int, seconds: float, *, path: str = "", delay_ms: float = 0, in_step: bool = False
) -> Run:
    """Ask over so many connections, each waiting ``delay_ms`` between its requests. No two questions are equal.

    Pauses are drawn at random, exponentially with that mean, or are all equal (``in_step``). Equal ones keep the
    connections together: all ask at once, and most answers wait for those to all the others, whatever is left idle.
    """
    delay = str(round(delay_ms)) if in_step else f"math.floor(-{delay_ms:.1f} * math.log(1 - math.random()) + 0.5)"
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "ask.lua")
        salt = os.urandom(6).hex()
        script.write_text(_SCRIPT.format(path=path, key=gateway.key, salt=salt, delay=delay))
        if not delay_ms:
            script.write_text(re.sub("function delay.*\n", "", script.read_text()))
        options = ["-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", str(script), "--timeout", "10s"]
        before = gateway.cpu_seconds()
        done = subprocess.run(
            ["taskset", "-c", LOAD_CORE, "wrk", *options, gateway.url], capture_output=True, text=True, check=True
        )
        used = gateway.cpu_seconds() - before
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    if found is None:
        raise RuntimeError(f"wrk said {done.stdout[-500:]}")
    requests, duration, errors, p50, p95, p99 = map(int, found.groups())
    return Run(
        rate=requests / duration * 1e6,
        errors=errors,
        p50=p50 / 1000,
        p95=p95 / 1000,
        p99=p99 / 1000,
        cpu_us=used / max(requests, 1) * 1e6,
    )
