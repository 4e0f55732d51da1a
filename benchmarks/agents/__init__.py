"""What an agent's step costs beside the model's time, with peers on the same mock, and a hundred runs at once.

The mock speaks OpenAI's API in a process of its own and calls a tool in every turn but the last. Its own time, which is
taken from all, is measured by asking it the very same way without an agent. Peers run when ``PEERS_PYTHON`` names a
Python that has them (``pip install smolagents 'pydantic-ai-slim[openai]'``); each in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from pagoda.core.configuration import load_settings
from pagoda.core.types import Call, new_id
from pagoda.logic.agents.desk import Agents
from pagoda.logic.agents.plan import AgentPlan, Limits
from pagoda.model.catalog.entry import ModelEntry, RemoteAddress
from tests.services import Service, running

TURNS = 10
ROUNDS = 15
CROWD = 100
PEERS = ("pydantic-ai", "smolagents")
HERE = Path(__file__).parent


@asynccontextmanager
async def mock() -> AsyncIterator[str]:
    """The mock's address."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "mock.py"), str(TURNS), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        yield (await child.stdout.readline()).decode().strip()
    finally:
        child.kill()
        await child.wait()


async def floor(url: str) -> tuple[float, float]:
    """Seconds of a turn without an agent, and of the processor's: the requests of a run, sent by a plain client."""
    taken, spent = [], []
    async with aiohttp.ClientSession() as session:
        for _ in range(ROUNDS):
            messages: list[dict[str, Any]] = [{"role": "user", "content": "Count."}]
            began, before = time.perf_counter(), time.process_time()
            for turn in range(TURNS + 1):
                async with session.post(f"{url}/chat/completions", json={"messages": messages}) as response:
                    answer = await response.json()
                messages += [
                    answer["choices"][0]["message"],
                    {"role": "tool", "tool_call_id": "c", "content": str(turn)},
                ]
            taken.append((time.perf_counter() - began) / (TURNS + 1))
            spent.append((time.process_time() - before) / (TURNS + 1))
    return median(taken), median(spent)


def plan() -> AgentPlan:
    """A task that nobody has set before: what has been asked once is answered from the cache, without the mock."""
    limits = Limits(turns=TURNS + 5, calls=TURNS + 5, tokens=10**9)
    return AgentPlan(task=f"Count. ({new_id('task')})", tools=("calculator",), model="mock", limits=limits)


async def run(agents: Agents) -> tuple[float, float]:
    """Seconds of a turn of one run, and of this process's processor time."""
    began, before = time.perf_counter(), time.process_time()
    begun = await agents.begin(plan(), Call())
    done = await agents.wait(begun.id, tenant=None)
    assert (done.status, done.answer) == ("done", "Counted."), done
    return (time.perf_counter() - began) / (TURNS + 1), (time.process_time() - before) / (TURNS + 1)


async def ours(url: str) -> dict[str, Any]:
    """A turn of ours, durable and through the door, and a crowd of runs."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"HOME": folder, "PAGODA_HOME": folder}
        settings = load_settings({"server.port": 0, "log.level": "error"}, environment, Path(folder))
        entry = ModelEntry(id="mock", task="chat", engine="remote", source=RemoteAddress(url=url, model="mock"))
        async with running(settings, [entry]) as service:
            agents = await _agents(service)
            await run(agents)
            turns = [await run(agents) for _ in range(ROUNDS)]
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            began = time.perf_counter()
            await asyncio.gather(*(run(agents) for _ in range(CROWD)))
            crowd = time.perf_counter() - began
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "turn_ms": round(median(wall for wall, _ in turns) * 1000, 2),
        "turn_cpu_ms": round(median(cpu for _, cpu in turns) * 1000, 2),
        "crowd_seconds": round(crowd, 2),
        "crowd_turn_ms": round(crowd / CROWD / (TURNS + 1) * 1000, 2),
        "crowd_grown_mib": round(grown / 1024, 1),
    }


async def _agents(service: Service) -> Agents:
    return await service.platform.desk.agents()


async def peer(name: str, url: str) -> dict[str, Any] | str:
    """A peer's figures, or why there are none."""
    python = os.environ.get("PEERS_PYTHON")
    if not python:
        return "not measured: PEERS_PYTHON names no Python"
    child = await asyncio.create_subprocess_exec(
        python, str(HERE / "peer.py"), name, url, str(TURNS), str(ROUNDS),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await child.communicate()
    if child.returncode:
        return f"not measured: {errors.decode().strip().splitlines()[-1][:200]}"
    figures: dict[str, Any] = json.loads(out.decode().splitlines()[-1])
    return figures


async def measure() -> dict[str, Any]:
    async with mock() as url:
        bare, bare_cpu = await floor(url)
        found: dict[str, Any] = {"pagoda": await ours(url)}
        for name in PEERS:
            found[name] = await peer(name, url)
    measured = {name: figures for name, figures in found.items() if isinstance(figures, dict)}
    return {
        "turns": TURNS,
        "rounds": ROUNDS,
        "mock_turn_ms": round(bare * 1000, 2),
        **found,
        "overhead_turn_ms": {name: round(each["turn_ms"] - bare * 1000, 2) for name, each in measured.items()},
        "overhead_cpu_ms": {name: round(each["turn_cpu_ms"] - bare_cpu * 1000, 2) for name, each in measured.items()},
    }
