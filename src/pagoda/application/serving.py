"""Serving over HTTP: bind, say where, run until told to stop, finish what is in flight, exit 0."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import uvicorn

from pagoda.application.logs import set_up_logs
from pagoda.application.platform import Platform
from pagoda.core.errors import Conflict, InvalidRequest
from pagoda.core.settings import Settings
from pagoda.interface.app import build_app
from pagoda.interface.perimeter import is_loopback

logger = logging.getLogger(__name__)

_LINGER_SECONDS = 3.0  # an embedded service outlives its last guest by this much: the next command finds it warm
_FIRST_GUEST_SECONDS = 30.0


class _Server(uvicorn.Server):
    """uvicorn whose signals are handled here: it would raise them again at the end, and exit with -15 instead of 0."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say so."""
        await super().startup(sockets=sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ``Conflict`` when the port is taken, ``InvalidRequest`` off loopback."""
    if not is_loopback(host):
        raise InvalidRequest(
            f"Without keys Pagoda binds only to loopback, not to {host}; put it behind a proxy on this machine.",
            param="server.host",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Conflict(
            f"{host}:{port} cannot be bound ({error.strerror}); stop what uses it or choose another: --port 8001.",
            param="server.port",
        ) from error
    listener.listen(2048)
    return listener


async def serve(settings: Settings, environment: Mapping[str, str], *, embedded: bool = False) -> int:
    """Serve until SIGTERM or SIGINT; give the exit status."""
    server_settings = settings.server
    listener = bind("127.0.0.1" if embedded else server_settings.host, 0 if embedded else server_settings.port)
    platform = Platform(settings, environment, embedded=embedded)
    host, port = listener.getsockname()[:2]
    url = f"http://{'[' + host + ']' if ':' in host else host}:{port}"

    try:
        await platform.start()
    except BaseException:
        listener.close()
        raise

    async def start() -> None:
        platform.publish(url)

    config = uvicorn.Config(
        build_app(platform, start, platform.stop),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(server_settings.drain_seconds)),
        ws="none",
    )
    server = _Server(config)

    def stop(number: signal.Signals) -> None:
        platform.closing.set()
        server.handle_exit(number, None)  # a second Ctrl-C does not wait for what is in flight

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    watcher = asyncio.create_task(_leave_with_guests(platform, server) if embedded else _announce(server, url))
    try:
        await server.serve(sockets=[listener])
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
    return 0 if server.started else 1


async def _announce(server: _Server, url: str) -> None:
    await server.ready.wait()
    if not server.started:
        return
    sys.stderr.write(f"Pagoda is ready: {url}  (page at /, API at /v1, reference at /docs; Ctrl-C stops it)\n")
    sys.stderr.flush()


async def _leave_with_guests(platform: Platform, server: _Server) -> None:
    """End an embedded service when nobody has joined it any more."""
    await server.ready.wait()
    if not platform.owns_engines:
        server.should_exit = True
        return
    seconds = _FIRST_GUEST_SECONDS
    while True:
        platform.left.clear()
        try:
            async with asyncio.timeout(seconds):
                await platform.left.wait()
        except TimeoutError:
            if platform.leases == 0:
                server.should_exit = True
                return
        seconds = _LINGER_SECONDS


def run(settings: Settings, environment: Mapping[str, str], *, embedded: bool = False) -> int:
    """``serve`` on uvloop, with logging set up; for the command line."""
    set_up_logs(settings.log)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(serve(settings, environment, embedded=embedded))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
