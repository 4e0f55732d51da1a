"""Redis frozen, restarted empty and flushed under several gateway processes: never over a limit, never leaked."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.redis_server import RedisServer, redis_server

pytestmark = [pytest.mark.requires("redis-server"), pytest.mark.timeout(120)]

NAMES = ("g1", "g2", "g3")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="rd-") as path, redis_server(Path(path)) as running:
        yield running


def flush(server: RedisServer) -> None:
    with Redis.from_url(server.url) as redis:
        redis.flushall()


def restart(server: RedisServer) -> None:
    server.kill()
    time.sleep(0.3)
    server.start()


def freeze(server: RedisServer) -> None:
    server.freeze()
    time.sleep(0.8)
    server.thaw()


FAULTS: dict[str, Callable[[RedisServer], None]] = {"flushed": flush, "restarted empty": restart, "frozen": freeze}


@pytest.mark.parametrize("fault", FAULTS)
async def test_never_more_than_the_limit_and_nothing_leaks(server: RedisServer, fault: str) -> None:
    program = Path(__file__).parent / "limiter_child.py"
    children = [
        subprocess.Popen(
            [sys.executable, str(program), server.url, name, ",".join(NAMES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in NAMES
    ]
    try:
        await asyncio.sleep(4)
        for _ in range(3):
            FAULTS[fault](server)
            await asyncio.sleep(1.5)
        await asyncio.sleep(6)  # a busy machine's services find Redis slow, too, and look again after a second
        outputs = [await asyncio.to_thread(child.communicate, "stop\n", 15) for child in children]
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
    lines = [line.split() for output, _ in outputs for line in output.splitlines()]
    assert [child.returncode for child in children] == [0, 0, 0]
    rates = [float(line[1]) for line in lines if line[0] == "rate"]
    assert len(rates) == 60  # all that a minute allows, and not one more
    assert max(rates) - min(rates) < 60
    under_way = most = 0
    for _, word in sorted((float(line[1]), line[0]) for line in lines if line[0] in ("begin", "end")):
        under_way += 1 if word == "begin" else -1
        most = max(most, under_way)
    assert under_way == 0
    assert 0 < most <= 5
    late = [float(line[1]) for line in lines if line[0] == "begin"]
    assert (
        max(late) > max(float(line[1]) for line in lines if line[0] == "end") - 1
    )  # still let in after the last fault
    done = [line for line in lines if line[0] == "done"]
    assert len(done) == 3
    if fault != "flushed":
        assert sum(int(line[2]) for line in done) > 0  # errors while it was away
        assert max(float(line[3]) for line in done) < 1.0  # none waited for it
    with Redis.from_url(server.url) as redis:
        assert redis.zcard("pagoda:{limits}:open:key:room") == 0
