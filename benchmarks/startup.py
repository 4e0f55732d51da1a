"""How long a user waits for help, an import and a ready service, and how large the service is.

Peer: the bare interpreter, which no Python program can be faster than.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from typing import Any

import psutil

from benchmarks.ground import median, service

ROUNDS = 9


def seconds(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - began


async def measure() -> dict[str, Any]:
    """The table, and its figures."""
    commands = {
        "python -c pass": ("-c", "pass"),
        "import pagoda": ("-c", "import pagoda"),
        "pagoda --help": ("-m", "pagoda", "--help"),
    }
    figures: dict[str, Any] = {}
    for name, arguments in commands.items():
        figures[f"{name} ms"] = median([seconds(*arguments) * 1000 for _ in range(ROUNDS)])
    ready, first, resident = [], [], 0.0
    for _ in range(3):
        began = time.perf_counter()
        with service() as (url, pid):
            ready.append(time.perf_counter() - began)
            body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}).encode()
            request = urllib.request.Request(url + "/v1/chat/completions", body, {"Content-Type": "application/json"})
            urllib.request.urlopen(request).close()
            first.append(time.perf_counter() - began)
            resident = psutil.Process(pid).memory_info().rss / 1e6
    figures |= {
        "service ready s": median(ready),
        "first answer s (engine loaded on demand)": median(first),
        "gateway resident MB": round(resident, 1),
    }
    for name, value in figures.items():
        print(f"{name:44}{value:>10}")
    return figures
