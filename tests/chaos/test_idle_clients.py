"""Clients that hold connections and say nothing, or read slowly: nobody else waits for them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp
import psutil

from tests.deployed import HEADERS, ask, behind_nginx, counted_model, furnish
from tests.services import process


async def test_two_hundred_idle_clients_and_fifty_that_stop_reading_keep_nobody_waiting(tmp_path: Path) -> None:
    async with counted_model() as model, aiohttp.ClientSession() as session:
        with process(furnish(tmp_path, model.entry), environment=behind_nginx()) as (url, child):
            assert await ask(session, url, "before", stream=True) == "fake before"
            host, port = url.removeprefix("http://").split(":")
            before = psutil.Process(child.pid).memory_info().rss
            idle = [await asyncio.open_connection(host, int(port)) for _ in range(200)]
            slow = [await asyncio.open_connection(host, int(port), limit=1024) for _ in range(50)]
            words = " ".join(f"w{number}" for number in range(400))
            body = b'{"messages":[{"role":"user","content":"' + words.encode() + b'"}],"stream":true,"max_tokens":2000}'
            for _, writer in slow:  # they ask for a long stream and never read it
                writer.write(
                    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    + f"Authorization: {HEADERS['Authorization']}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
            began = time.monotonic()
            for number in range(20):
                said = await ask(session, url, f"beside {number}", stream=number % 2 == 0)
                assert said == f"fake beside {number}"
            assert time.monotonic() - began < 60  # waiting for one of them would have no end
            assert psutil.Process(child.pid).memory_info().rss - before < 200 * 2**20
            for _, writer in (*idle, *slow):
                writer.close()
            assert await ask(session, url, "after", stream=False) == "fake after"
