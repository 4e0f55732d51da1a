"""A service that ends: nothing is lost, nothing is done twice, and whoever asks too late is told so."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.deployed import HEADERS, Load, ask, behind_nginx, counted_model, furnish, nginx, wait_for
from tests.services import WAIT_SECONDS, eventually, free_port, process

LONG = " ".join(f"word{number}" for number in range(60))


async def ended(child: subprocess.Popen[bytes]) -> int:
    return await asyncio.to_thread(child.wait, WAIT_SECONDS)


@pytest.mark.requires("nginx")
async def test_a_rolling_restart_behind_nginx_loses_nothing(tmp_path: Path) -> None:
    ports = (free_port(), free_port())
    async with counted_model(token_seconds=0.02) as model, aiohttp.ClientSession() as session:
        homes = [furnish(tmp_path / name, model.entry) for name in ("a", "b")]
        with ExitStack() as stack:

            def start(which: int) -> subprocess.Popen[bytes]:
                flags = ("--port", str(ports[which]))
                return stack.enter_context(process(homes[which], *flags, environment=behind_nginx()))[1]

            children = [start(0), start(1)]
            async with nginx(tmp_path / "nginx", ports) as url:
                load = Load(url)
                load.start(session, clients=12, words=30)
                for which in (0, 1):
                    already = len(load.answered)
                    await eventually(lambda already=already: len(load.answered) > already + 12)
                    children[which].send_signal(signal.SIGTERM)
                    assert await ended(children[which]) == 0
                    children[which] = start(which)
                    await wait_for(f"http://127.0.0.1:{ports[which]}/ready", 200)
                already = len(load.answered)
                await eventually(lambda: len(load.answered) > already + 12)
                await load.stop()
    assert load.wrong == []
    assert load.sent == set(load.answered)
    assert set(load.answered.values()) == {1}
    assert model.asked == load.answered  # nobody's question was computed twice
    assert len(load.sent) > 100


@pytest.mark.parametrize("way", ["signal", "api", "command"])
async def test_what_was_admitted_is_finished_and_later_work_refused(tmp_path: Path, way: str) -> None:
    environment = behind_nginx(PAGODA_SERVER_DRAIN_GRACE_SECONDS="0.5")
    async with counted_model(token_seconds=0.05) as model, aiohttp.ClientSession() as session:
        with process(furnish(tmp_path, model.entry), environment=environment) as (url, child):
            streams = [asyncio.create_task(ask(session, url, f"{LONG} {number}", stream=True)) for number in range(3)]
            await eventually(lambda: len(model.asked) == 3)
            await wait_for(f"{url}/ready", 200)
            await begin(way, session, url, child, tmp_path)
            await wait_for(f"{url}/ready", 503)
            assert await ask(session, url, "still taken", stream=False) == "fake still taken"
            assert [await stream for stream in streams] == [f"fake {LONG} {number}" for number in range(3)]
            assert await ended(child) == 0
        assert sum(model.asked.values()) == 4


async def begin(way: str, session: aiohttp.ClientSession, url: str, child: subprocess.Popen[bytes], home: Path) -> None:
    if way == "signal":
        child.send_signal(signal.SIGTERM)
    elif way == "api":
        async with session.post(f"{url}/api/v1/drain", headers=HEADERS) as response:
            assert response.status == 202
            assert await response.json() == {"status": "draining", "requests": 3}
    else:
        command = [sys.executable, "-m", "pagoda", "drain", "--no-wait", "--set", "log.level=info"]
        done = await asyncio.create_subprocess_exec(*command, env={**os.environ, "PAGODA_HOME": str(home)})
        assert await done.wait() == 0


async def test_a_late_request_on_an_open_connection_is_told_to_go_elsewhere(tmp_path: Path) -> None:
    environment = behind_nginx(PAGODA_SERVER_DRAIN_GRACE_SECONDS="0")
    async with counted_model(token_seconds=0.05) as model, aiohttp.ClientSession() as session:
        with process(furnish(tmp_path, model.entry), environment=environment) as (url, child):
            stream = asyncio.create_task(ask(session, url, LONG, stream=True))
            await eventually(lambda: len(model.asked) == 1)
            reader, writer = await connect(url)
            await until_ready_is(reader, writer, b"200")
            child.send_signal(signal.SIGTERM)
            await refused_connections(url)
            answer = await exchange(reader, writer, "POST", "/v1/chat/completions")
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 1" in answer.lower()
            assert b"connection: close" in answer.lower()
            assert b'"draining"' in answer
            writer.close()
            assert await stream == f"fake {LONG}"
            assert await ended(child) == 0
    assert sum(model.asked.values()) == 1


async def test_what_takes_too_long_is_cut_at_the_limit(tmp_path: Path) -> None:
    environment = behind_nginx(PAGODA_SERVER_DRAIN_GRACE_SECONDS="0", PAGODA_SERVER_DRAIN_SECONDS="0.5")
    async with counted_model(token_seconds=0.5) as model, aiohttp.ClientSession() as session:
        with process(furnish(tmp_path, model.entry), environment=environment) as (url, child):
            stream = asyncio.create_task(ask(session, url, LONG, stream=True))
            await eventually(lambda: len(model.asked) == 1)
            began = time.monotonic()
            child.send_signal(signal.SIGTERM)
            assert await ended(child) == 0
            assert time.monotonic() - began < 15  # the answer would have taken 30 s
            with pytest.raises((aiohttp.ClientError, AssertionError)):
                await stream


async def test_nobody_without_the_scope_ends_the_service(tmp_path: Path) -> None:
    async with counted_model() as model, aiohttp.ClientSession() as session:
        with process(furnish(tmp_path, model.entry), environment=behind_nginx()) as (url, _):
            async with session.post(f"{url}/api/v1/drain") as response:
                assert response.status == 401
            draft = {"name": "asker", "scopes": ["inference"]}
            async with session.post(f"{url}/api/v1/keys", json=draft, headers=HEADERS) as response:
                secret: Any = (await response.json())["secret"]
            async with session.post(f"{url}/api/v1/drain", headers={"Authorization": f"Bearer {secret}"}) as response:
                assert response.status == 403
            await wait_for(f"{url}/ready", 200)


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, path: str) -> bytes:
    """A request over a connection that stays, and the head and body of its answer."""
    key = HEADERS["Authorization"]
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\n".encode())
    writer.write(b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head + await reader.readexactly(length)


async def until_ready_is(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: bytes) -> None:
    assert status in (await exchange(reader, writer, "GET", "/ready")).split(b"\r\n")[0]


async def refused_connections(url: str) -> None:
    """Wait until the service does not listen any more."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                _, writer = await connect(url)
            except ConnectionRefusedError:
                return
            writer.close()
            await asyncio.sleep(0.01)
