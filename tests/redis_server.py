"""A real redis-server for tests, on a socket of its own, that a test may stop, freeze and start again."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

WAIT_SECONDS = 10.0


class RedisServer:
    """Keeps nothing on disk: what it held is gone after a restart."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._folder = folder
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        command = ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        with (self._folder / "redis.log").open("ab") as log:
            self._child = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        end = time.monotonic() + WAIT_SECONDS
        while not self.socket.exists():
            assert self._child.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)

    @property
    def child(self) -> subprocess.Popen[bytes]:
        assert self._child is not None
        return self._child

    def freeze(self) -> None:
        self.child.send_signal(signal.SIGSTOP)
        while psutil.Process(self.child.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.001)

    def thaw(self) -> None:
        self.child.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A running server; killed at the end."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
