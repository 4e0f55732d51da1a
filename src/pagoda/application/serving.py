"""Serving over HTTP: bind, say where, run until told to stop, finish what is in flight, exit 0."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from pagoda.application.drain import Drain
from pagoda.application.lines import Lines
from pagoda.application.logs import set_up_logs
from pagoda.application.loop import collect_less, loop_factory
from pagoda.application.platform import Platform
from pagoda.application.workers import RELEASE, Seat, run_workers
from pagoda.core.errors import ConfigError, Conflict
from pagoda.core.settings import Server, Settings
from pagoda.interface.app import build_app
from pagoda.interface.perimeter import is_loopback

logger = logging.getLogger(__name__)

_LINGER_SECONDS = 3.0  # an embedded service outlives its last guest by this much: the next command finds it warm
_FIRST_GUEST_SECONDS = 30.0
_CUT_SECONDS = 1  # whoever was waited for longer than settings allow has had its time


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
    """A listening socket. Raises ``Conflict`` when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, because asyncio switches off delays (Nagle) only for sockets that say TCP: else short answers wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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


def address_of(listener: socket.socket) -> str:
    """Where processes of this machine reach a listener."""
    host, port = listener.getsockname()[:2]
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://{'[' + local + ']' if ':' in local else local}:{port}"


async def serve(
    settings: Settings,
    environment: Mapping[str, str],
    *,
    embedded: bool = False,
    model: str | None = None,
    seat: Seat | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT; give the exit status. ``model`` becomes the default of its task.

    ``seat`` is this process's place among several workers.
    """
    listeners = [_listener(settings.server, seat, embedded=embedded)]
    if seat is not None and seat.owner:
        listeners.append(bind("127.0.0.1", 0))  # the others reach the owner there, and not each other
    url = address_of(listeners[-1])
    platform = Platform(settings, environment, embedded=embedded, seated=seat is not None and not seat.owner)
    lines = Lines(sys.stderr.fileno())
    platform.write_line = lines.write
    try:
        await _open(platform, listeners[0], model, seat)
    except BaseException:
        await platform.stop()
        for listener in listeners:
            listener.close()
        raise

    async def start() -> None:
        platform.publish(url)

    server = _server(build_app(platform, start, platform.stop))
    drain = Drain(
        server,
        platform.gate,
        settings.server,
        listener=listeners[0],
        announced=platform.closing.set,
        spread=None if seat is None else lambda: os.kill(os.getppid(), signal.SIGTERM),
    )
    _heed_signals(drain, seat)
    said = address_of(listeners[0])
    watchers = (
        asyncio.create_task(_leave_with_guests(platform, server) if embedded else _announce(server, said, seat)),
        asyncio.create_task(drain.carry_out()),
    )
    collect_less()
    try:
        await server.serve(sockets=listeners)
    finally:
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        lines.close()
    return 0 if server.started else 1


def _server(app: FastAPI) -> _Server:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_CUT_SECONDS,
        ws="none",
    )
    return _Server(config)


async def _open(platform: Platform, listener: socket.socket, model: str | None, seat: Seat | None) -> None:
    """Start what stands behind the listener; say what its user has to know."""
    await platform.start()
    if not is_loopback(listener.getsockname()[0]) and (secret := await platform.demand_keys()) is not None:
        sys.stderr.write(f"Admin key, shown this once: {secret}\n")
    if model is not None and (seat is None or seat.owner):
        sys.stderr.write(f"{await platform.feature(model)}\n")


def _listener(settings: Server, seat: Seat | None, *, embedded: bool) -> socket.socket:
    if seat is not None:
        return seat.listener
    return bind("127.0.0.1", 0) if embedded else bind(settings.host, settings.port)


def _heed_signals(drain: Drain, seat: Seat | None) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, drain.ask)
    loop.add_signal_handler(signal.SIGINT, drain.hurry)
    if seat is not None:
        drain.others_stand_on_it = seat.owner
        loop.add_signal_handler(RELEASE, drain.release)
        loop.add_reader(seat.life, _orphaned, drain, loop, seat.life)


def _orphaned(drain: Drain, loop: asyncio.AbstractEventLoop, life: int) -> None:
    """The captain is gone, and nobody would start us again or tell us to end."""
    loop.remove_reader(life)
    drain.ask()
    drain.release()


async def _announce(server: _Server, url: str, seat: Seat | None) -> None:
    await server.ready.wait()
    if not server.started:
        return
    if seat is not None:
        seat.ready()
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
                platform.withdraw()  # while it still listens: who joins a moment later would find a closed door
                server.should_exit = True
                return
        seconds = _LINGER_SECONDS


def run(settings: Settings, environment: Mapping[str, str], *, embedded: bool = False, model: str | None = None) -> int:
    """``serve`` on uvloop, with logging set up, in as many processes as settings say; for the command line."""
    demand_shared_stores(settings)
    set_up_logs(settings.log)

    def work(seat: Seat | None = None) -> int:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(serve(settings, environment, embedded=embedded, model=model, seat=seat))

    if embedded or settings.server.workers == 1:
        return work()
    listener = bind(settings.server.host, settings.server.port)
    return run_workers(settings, listener, address_of(listener), work)


def demand_shared_stores(settings: Settings) -> None:
    """Raises ``ConfigError`` where several services are to share what each of them would keep for itself."""
    if settings.server.instances != "several":
        return
    missing = {
        "storage.url": settings.storage.url.reveal().startswith("postgres"),
        "limits.redis_url": bool(settings.limits.redis_url),
        "cache.redis_url": bool(settings.cache.redis_url) or not settings.cache.enabled,
    }
    if lacking := [name for name, there in missing.items() if not there]:
        raise ConfigError(
            [
                f"{name} must be set, since server.instances = 'several': records are shared in PostgreSQL, limits and "
                "cache in Redis"
                for name in lacking
            ]
        )
