"""Faults of the gateway's own ground under load: clients, Redis, database, disk, clock, and its own end.

A service process with a key that has limits stands before two scripted servers; eight clients stream at a time. The
clock is set in a service inside this process, since a machine's own must not be touched.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import aiohttp
import orjson

from benchmarks.load import Act, Row, load, question
from pagoda.core.settings import Settings
from tests.pooled import pooled
from tests.redis_server import RedisServer, redis_server
from tests.services import Service, free_port, process
from tests.upstreams import Upstream, pool_of, upstreams

TEXT = "".join(f" word{number}" for number in range(30))
LONG = " word" * 12_000
SLOW = 5
IDLE = int(os.environ.get("CHAOS_IDLE", "200"))
ADMIN = "an admin key for chaos"
LIMITS = {"requests_per_minute": 10**6, "concurrent": 64, "budget_tokens": 10**9}


@dataclass
class Ground:
    """A gateway process and what it stands on."""

    home: Path
    servers: list[Upstream]
    environment: dict[str, str]
    redis: RedisServer | None = None
    port: int = field(default_factory=free_port)
    url: str = ""
    secret: str = ""
    _running: Any = None
    _child: Any = None

    async def start(self) -> None:
        """Start it, or start it again at the same port."""
        self._running = process(self.home, "--port", str(self.port), environment=self.environment)
        self.url, self._child = await asyncio.to_thread(self._running.__enter__)

    async def kill(self) -> None:
        """SIGKILL."""
        await asyncio.to_thread(self._running.__exit__, None, None, None)

    async def key(self) -> None:
        """Make a key with limits."""
        body = {"name": "load", "limits": LIMITS}
        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(self.url + "/api/v1/keys", json=body) as answer,
        ):
            assert answer.status < 300, await answer.text()
            self.secret = (await answer.json())["secret"]


@asynccontextmanager
async def grounded(folder: Path, *, redis: bool) -> AsyncIterator[Ground]:
    """A gateway in a home, with a Redis for its limits if need be."""
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(upstreams(2, text=TEXT, token_seconds=0.005))
        lines = ['[pools.chat]\npolicy = "round_robin"']
        lines += [
            f'[[pools.chat.replicas]]\nurl = "{each.url}"\nmodel = "fake"\nkey_env = "UPSTREAM_KEY"' for each in servers
        ]
        (folder / "pagoda.toml").write_text("\n".join(lines), encoding="utf-8")
        environment = {"PAGODA_ADMIN_KEY": ADMIN, "UPSTREAM_KEY": "key", "PAGODA_CACHE_ENABLED": "false"}
        server = None
        if redis:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="rd-"))
            server = stack.enter_context(redis_server(Path(place)))
            environment["PAGODA_LIMITS_REDIS_URL"] = server.url
        ground = Ground(folder, servers, environment, server)
        await ground.start()
        try:
            await ground.key()
            yield ground
        finally:
            await ground.kill()


async def nothing() -> None:
    """There is nothing to be done."""


def slow_readers(ground: Ground) -> tuple[Act, Act]:
    """Clients that ask for a long answer and read nothing of it until the end."""
    taken: list[socket.socket] = []

    async def begin() -> None:
        for each in ground.servers:
            each.script["rules"] = [{"contains": "LONG", "text": LONG, "token_seconds": 0}]
        body = orjson.dumps(
            {"model": "chat", "messages": [{"role": "user", "content": "LONG"}], "stream": True, "max_tokens": 10**6}
        )
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: pagoda\r\nAuthorization: Bearer {ground.secret}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        for _ in range(SLOW):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", ground.port))
            connection.sendall(head.encode() + body)
            taken.append(connection)

    async def leave() -> None:
        for connection in taken:
            first = await asyncio.to_thread(connection.recv, 16)
            assert first.startswith(b"HTTP/1.1 200"), first
            connection.close()

    return begin, leave


def idle_clients(ground: Ground) -> tuple[Act, Act]:
    """Connections that say nothing."""
    taken: list[socket.socket] = []

    async def begin() -> None:
        for _ in range(IDLE):
            taken.append(await asyncio.to_thread(socket.create_connection, ("127.0.0.1", ground.port)))

    async def leave() -> None:
        for connection in taken:
            connection.close()

    return begin, leave


def _redis(ground: Ground) -> RedisServer:
    assert ground.redis is not None
    return ground.redis


def _at_once(begin: Callable[[], Any], leave: Callable[[], Any]) -> tuple[Act, Act]:
    async def do() -> None:
        await asyncio.to_thread(begin)

    async def undo() -> None:
        await asyncio.to_thread(leave)

    return do, undo


def redis_frozen(ground: Ground) -> tuple[Act, Act]:
    """SIGSTOP for half of the time."""
    return _at_once(_redis(ground).freeze, _redis(ground).thaw)


def redis_gone(ground: Ground) -> tuple[Act, Act]:
    """Killed, and started empty after half of the time."""
    return _at_once(_redis(ground).kill, _redis(ground).start)


def redis_restarted(ground: Ground) -> tuple[Act, Act]:
    """Killed and started again at once, empty."""

    def restart() -> None:
        _redis(ground).kill()
        _redis(ground).start()

    return _at_once(restart, lambda: None)


def database_locked(ground: Ground) -> tuple[Act, Act]:
    """Another process holds the SQLite file for itself."""
    database = sqlite3.connect(ground.home / "pagoda.db", isolation_level=None, check_same_thread=False, timeout=30)

    def leave() -> None:
        database.execute("ROLLBACK")
        database.close()

    return _at_once(lambda: database.execute("BEGIN EXCLUSIVE"), leave)


def disk_full(ground: Ground) -> tuple[Act, Act]:
    """The file system of the home has no room left."""
    filler = ground.home / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file:
            for size in (2**16, 1):
                try:
                    while file.write(b"\0" * size):
                        pass
                except OSError:  # full to within this size
                    continue

    return _at_once(fill, filler.unlink)


def killed(ground: Ground) -> tuple[Act, Act]:
    """SIGKILL in mid-stream; it is started again at once."""

    async def begin() -> None:
        await ground.kill()
        await ground.start()

    return begin, nothing


FAULTS: Mapping[str, Callable[[Ground], tuple[Act, Act]]] = {
    "slow readers": slow_readers,
    f"{IDLE} idle clients": idle_clients,
    "Redis frozen": redis_frozen,
    "Redis restarted": redis_restarted,
    "Redis gone": redis_gone,
    "database locked": database_locked,
    "disk full": disk_full,
    "gateway killed": killed,
}
CLOCK = "clock jumps an hour"
NAMES = (*FAULTS, CLOCK)


@asynccontextmanager
async def home_of(name: str) -> AsyncIterator[Path | None]:
    """A home; for the full disk on a file system of its own, ``None`` where none may be mounted."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if name != "disk full":
            yield place
            return
        if shutil.which("mount") is None:
            yield None
            return
        command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)
        try:
            yield place if done.returncode == 0 else None
        finally:
            if done.returncode == 0:
                await asyncio.to_thread(subprocess.run, ["umount", "-l", folder], check=True)


async def run_gateway(settings: Settings, seconds: float, names: Sequence[str] = NAMES) -> list[Row]:
    """Faults of the gateway, each with a process of its own."""
    rows = []
    for name in names:
        if name == CLOCK:
            rows.append(await clock_jumps(settings, seconds))
            continue
        async with home_of(name) as home:
            if home is None:
                rows.append(Row(f"{name} (cannot be mounted)"))
                continue
            rows.append(await _endured(name, home, seconds))
    return rows


async def _endured(name: str, home: Path, seconds: float) -> Row:
    row = Row(f"gateway: {name}")
    async with grounded(home, redis="Redis" in name) as ground:
        headers = {"Authorization": f"Bearer {ground.secret}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            service = Service(ground.url, cast("Any", None), session)
            began = sum(each.asked for each in ground.servers)
            mended = await load(service, row, question("chat", max_tokens=40), seconds, *FAULTS[name](ground))
            await _until_served(service)
            row.back_s = round(time.monotonic() - mended, 2) if row.recovered_s is not None else None
            beside = SLOW if name == "slow readers" else 0
            asked = sum(each.asked for each in ground.servers) - began
            row.duplicated = max(asked - row.sent - beside - 2, 0)  # the first question, and the last
    return row


async def _until_served(service: Service) -> None:
    """Ask until there is an answer."""
    for _ in range(300):
        async with service.session.post(
            service.url + "/v1/chat/completions", json=question("chat", max_tokens=1)
        ) as answer:
            if answer.status == 200:
                return
        await asyncio.sleep(0.1)
    raise AssertionError("the gateway does not answer again")


async def clock_jumps(settings: Settings, seconds: float) -> Row:
    """The wall clock goes an hour forward, and back again, under requests that have deadlines."""
    row = Row(f"gateway: {CLOCK}")
    true, shift = time.time, [0.0]

    async def jump(hours: float) -> None:
        shift[0] = 3600 * hours

    async with (
        upstreams(2, text=TEXT, token_seconds=0.005) as servers,
        pooled(settings, {"chat": pool_of(servers)}) as service,
    ):
        with patch("time.time", lambda: true() + shift[0]):
            service.session.headers["X-Request-Timeout"] = "30"
            body = question("chat", max_tokens=40)
            mended = await load(service, row, body, seconds, partial(jump, 1), partial(jump, -1))
            await _until_served(service)
            row.back_s = round(time.monotonic() - mended, 2)
            row.duplicated = max(sum(each.asked for each in servers) - row.sent - 2, 0)
    return row
