"""Faults of replicas under load: what clients get, as a table. ``CHAOS_SECONDS`` sets the length of each scenario.

A pool of three scripted servers (later of two llama.cpp processes) answers streams, eight at a time. After a quarter
of the time one of them gets a fault, which is lifted after three; ``back_s`` ends when the replica is usable again.
Then come the faults of the gateway's own ground (``gateway_faults``). ``load`` says what the columns mean.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from benchmarks.gateway_faults import run_gateway
from benchmarks.ground import with_engines
from benchmarks.load import Act, Row, load, question, show
from pagoda.core.configuration import load_settings
from pagoda.core.settings import Routing, Settings
from tests.pooled import pooled
from tests.services import Service
from tests.upstreams import Upstream, pool_of, upstreams

TEXT = "".join(f" word{number}" for number in range(30))
ROUTING = Routing(health_seconds=0.1, silence_seconds=0.5, misses=2, open_seconds=0.3)
CHAT = "smollm2-135m-instruct"


async def endure(service: Service, row: Row, body: Mapping[str, Any], seconds: float, fault: Act, mend: Act) -> None:
    """Load for a time with a fault of a replica, until all replicas are back."""
    mended = await load(service, row, body, seconds, fault, mend)
    while not all(replica["usable"] for pool in await service.platform.pools() for replica in pool["replicas"]):
        if time.monotonic() - mended > 90:
            return
        await asyncio.sleep(0.02)
    row.back_s = round(time.monotonic() - mended, 2)


def scripted(server: Upstream, servers: list[Upstream]) -> dict[str, tuple[Act, Act]]:
    """The faults of a scripted server, and how each is lifted."""

    def change(**fields: Any) -> tuple[Act, Act]:
        async def do() -> None:
            server.script.update(fields)

        async def undo() -> None:
            for name in fields:
                server.script.pop(name)
            server.script["token_seconds"] = 0.005

        return do, undo

    def answer(status: int, **headers: str) -> tuple[Act, Act]:
        async def do() -> None:
            server.answer = web.Response(status=status, headers=headers)

        async def undo() -> None:
            server.answer = None

        return do, undo

    async def mute() -> None:
        server.mute = True

    async def unmute() -> None:
        server.mute = False
        await server.stop()
        await server.start()

    async def stop_all() -> None:
        await asyncio.gather(*(each.stop() for each in servers))

    async def start_all() -> None:
        await asyncio.gather(*(each.start() for each in servers))

    return {
        "killed": (server.stop, server.start),
        "silent": (mute, unmute),
        "slow": change(token_seconds=0.1),
        "429": answer(429, **{"Retry-After": "1"}),
        "500": answer(500),
        "garbage": change(fault="garbage", fault_at=2),
        "cut first": change(fault="cut", fault_at=0),
        "cut middle": change(fault="cut", fault_at=15),
        "cut last": change(fault="cut", fault_at=29),
        "hang in mid-answer": change(fault="hang", fault_at=15),
        "all gone": (stop_all, start_all),
    }


NAMES = tuple(scripted(Upstream({}), []))


async def run_scripted(settings: Settings, seconds: float, names: Sequence[str] = NAMES) -> list[Row]:
    """Faults of a scripted server."""
    rows = []
    for name in names:
        row = Row(name)
        async with upstreams(3, text=TEXT, token_seconds=0.005) as servers:
            pool = pool_of(servers, policy="power_of_two")
            async with pooled(settings, {"chat": pool}, routing=ROUTING) as service:
                body = question("chat")
                await endure(service, row, body, seconds, *scripted(servers[0], servers)[name])
        rows.append(row)
    return rows


async def run_real(settings: Settings, seconds: float) -> list[Row]:
    """Kill and stop of real engines."""
    settings = with_engines(settings, threads=1, parallel=4, context=512)
    rows = []
    pool = {"replicas": [{"model": CHAT, "copies": 2}], "policy": "power_of_two"}
    for name in ("killed", "stopped"):
        row = Row(f"llama.cpp {name}")
        async with pooled(settings, {"chat": pool}, routing=Routing(), scripted=False) as service:
            for each in (CHAT, f"{CHAT}-2"):
                while (await service.platform.states()).get(each, {}).get("state") != "ready":
                    await service.stream("/v1/chat/completions", question("chat", max_tokens=1))
                    await asyncio.sleep(0.1)
            pid = int((await service.platform.states())[CHAT]["pid"])

            async def send(number: int, pid: int = pid) -> None:
                os.kill(pid, number)

            async def nothing() -> None:
                """The supervisor starts it again."""

            acts: tuple[Act, Act] = (lambda: send(signal.SIGKILL), nothing)
            if name == "stopped":
                acts = (lambda: send(signal.SIGSTOP), lambda: send(signal.SIGCONT))
            await endure(service, row, question("chat", max_tokens=24), seconds, *acts)
        rows.append(row)
    return rows


async def measure() -> dict[str, Any]:
    """All scenarios: of replicas, of real engines, of the gateway itself."""
    seconds = float(os.environ.get("CHAOS_SECONDS", "4"))
    with tempfile.TemporaryDirectory() as home:
        settings = load_settings({"server.port": 0}, {"HOME": home, "PAGODA_HOME": home + "/home"}, Path(home))
        rows = [*await run_scripted(settings, seconds), *await run_real(settings, 5 * seconds)]
        rows += await run_gateway(settings, seconds)
    show(rows)
    return {"seconds": seconds, "rows": [dataclasses.asdict(row) for row in rows]}
