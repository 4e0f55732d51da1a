"""Two hundred streams at once through a gateway: what it adds to the time of each frame, and whether any is lost."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass

import aiohttp
import orjson


@dataclass(frozen=True)
class Streams:
    """Frames a second that arrived, and how long they were on their way, milliseconds."""

    rate: float
    p50: float
    p99: float
    lost: int
    """Frames that never came, came twice or out of order, over all streams."""


async def read_streams(url: str, key: str, streams: int, rate: float, seconds: float) -> Streams:
    """Read so many streams, which bring ``rate`` frames a second together; every frame says when it was sent."""
    every = streams / rate
    frames = max(3, round(seconds / every))
    delays: list[float] = []
    lost = 0
    began = time.monotonic()

    async def read(session: aiohttp.ClientSession, number: int) -> None:
        nonlocal lost
        messages = [{"role": "user", "content": f"stream {number}"}, {"role": "user", "content": f"{frames} {every}"}]
        body = {"model": "mock", "stream": True, "messages": messages}
        next_frame = 0
        async with session.post(url + "/v1/chat/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                now = time.monotonic_ns()
                for choice in orjson.loads(line[6:])["choices"]:
                    for piece in (choice["delta"].get("content") or "").split(";")[:-1]:
                        index, sent = piece.split()
                        lost += int(index) != next_frame
                        next_frame = int(index) + 1
                        delays.append((now - int(sent)) / 1e6)
        lost += frames - next_frame

    headers = {"Authorization": f"Bearer {key}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        await asyncio.gather(*(read(session, number) for number in range(streams)))
    taken = time.monotonic() - began
    delays.sort()
    return Streams(len(delays) / taken, delays[len(delays) // 2], delays[int(len(delays) * 0.99)], lost)


if __name__ == "__main__":
    address, secret, *numbers = sys.argv[1:]
    figures = asyncio.run(read_streams(address, secret, int(numbers[0]), float(numbers[1]), float(numbers[2])))
    print(json.dumps(asdict(figures)))
