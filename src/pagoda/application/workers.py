"""Several processes behind one listener: the first owns the engines, the others join it; who dies is started again.

The captain, which this module is, serves nothing itself and runs no event loop, so that it may fork at any time: it
binds the listener, starts the workers, and waits for signals. Limits, cache and admission live in the owner, and every
worker asks models through it (``joining``), so no worker knows less than another.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pagoda.core.errors import Conflict, PagodaError
from pagoda.core.settings import Settings
from pagoda.service.crew import Crew, remove_crew, write_crew

logger = logging.getLogger(__name__)

_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
_LOOK_SECONDS = 0.2
_YOUNG_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 30.0
_SPARE_SECONDS = 15.0  # for a worker to close what it holds, after all that it may wait for
RELEASE = signal.SIGUSR2
"""Tells the owner that nobody is left who needs its engines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A worker's place: what it gets from the captain."""

    listener: socket.socket
    owner: bool
    """It owns the engines; the others join it."""
    life: int
    """A pipe that ends with the captain."""
    said: int
    """A pipe that tells the captain that this worker is ready."""

    def ready(self) -> None:
        """Tell the captain."""
        os.write(self.said, b"1")


@dataclass(slots=True)
class _Worker:
    number: int
    pid: int = 0
    ready: bool = False
    heard: int = -1
    born: float = 0.0
    pause: float = 0.0
    again_at: float = 0.0


@dataclass(slots=True)
class Captain:
    """Starts the workers of one home, and ends when they have ended."""

    settings: Settings
    listener: socket.socket
    url: str
    work: Callable[[Seat], int]
    """What a worker does with its life, in a process of its own; gives its exit status."""
    _workers: list[_Worker] = field(default_factory=list)
    _life: tuple[int, int] = (-1, -1)
    _ending: float | None = None
    _released: bool = False
    _failed: bool = False
    _announced: bool = False

    def run(self) -> int:
        """Serve until told to stop; the exit status."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._life = os.pipe()
        self._workers = [_Worker(number) for number in range(self.settings.server.workers)]
        self._start(self._workers[0])
        try:
            while any(worker.pid for worker in self._workers) or self._ending is None:
                told = signal.sigtimedwait(_SIGNALS, _LOOK_SECONDS)
                if told is not None and told.si_signo != signal.SIGCHLD:
                    self._end(signal.Signals(told.si_signo))
                self._bury()
                self._hear()
                self._fill()
                self._press()
        finally:
            remove_crew(self.settings.home)
        return 1 if self._failed else 0

    def _start(self, worker: _Worker) -> None:
        heard, said = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._become(worker, said)
        os.close(said)
        worker.pid, worker.heard, worker.ready, worker.born = pid, heard, False, time.monotonic()

    def _become(self, worker: _Worker, said: int) -> None:
        """Be a worker, to the end of this process."""
        status = 1
        try:
            os.close(self._life[1])
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            owner = worker.number == 0
            status = self.work(Seat(listener=self.listener, owner=owner, life=self._life[0], said=said))
        except PagodaError as error:
            sys.stderr.write(f"pagoda: {error.message}\n")
        except KeyboardInterrupt:
            status = 130
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _bury(self) -> None:
        """See who has died, and when to start it again; who never was ready ends us all."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = next((one for one in self._workers if one.pid == pid), None)
            if worker is None:
                continue
            code = os.waitstatus_to_exitcode(status)
            if worker.heard >= 0:
                self._listen(worker)
            was_ready, young = worker.ready, time.monotonic() - worker.born < _YOUNG_SECONDS
            worker.pid, worker.ready = 0, False
            if self._ending is not None:
                self._failed |= code != 0
            elif not was_ready and not self._announced:
                self._failed = True
                self._end(signal.SIGTERM)
            else:
                worker.pause = min(max(1.0, worker.pause * 2), _LONGEST_PAUSE_SECONDS) if young else 0.0
                worker.again_at = time.monotonic() + worker.pause
                logger.error("worker %d (process %d) ended with %d and is started again", worker.number, pid, code)
            self._tell()

    def _hear(self) -> None:
        """See who has become ready; the first makes room for the others."""
        waiting = [worker for worker in self._workers if worker.heard >= 0]
        for worker in waiting:
            if select.select([worker.heard], [], [], 0)[0]:
                self._listen(worker)
                self._tell()
        if not self._announced and all(worker.ready for worker in self._workers):
            self._announced = True
            sys.stderr.write(
                f"Pagoda is ready: {self.url}  ({len(self._workers)} workers; page at /, API at /v1, reference at "
                "/docs; Ctrl-C stops it)\n"
            )
            sys.stderr.flush()

    def _listen(self, worker: _Worker) -> None:
        worker.ready = os.read(worker.heard, 1) == b"1"
        os.close(worker.heard)
        worker.heard = -1

    def _fill(self) -> None:
        """Start who is missing; at first nobody before the owner is ready, since they would wait for it."""
        if self._ending is not None or not (self._announced or self._workers[0].ready):
            return
        for worker in self._workers:
            if worker.pid == 0 and time.monotonic() >= worker.again_at:
                self._start(worker)

    def _end(self, number: signal.Signals) -> None:
        """Have everybody drain; the owner stays until the others have ended."""
        if self._ending is None:
            self._ending = time.monotonic()
            self.listener.close()  # it goes on listening in the workers, until they stop
        self._signal(number)

    def _press(self) -> None:
        if self._ending is None:
            return
        if not self._released and not any(worker.pid for worker in self._workers[1:]):
            self._released = True
            if self._workers[0].pid:
                os.kill(self._workers[0].pid, RELEASE)
        server = self.settings.server
        longest = 2 * server.drain_grace_seconds + 2 * server.drain_seconds + _SPARE_SECONDS
        if time.monotonic() - self._ending > longest:
            self._failed = True
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.pid:
                os.kill(worker.pid, number)

    def _tell(self) -> None:
        ready = tuple(worker.pid for worker in self._workers if worker.ready)
        crew = Crew(url=self.url, captain=os.getpid(), wanted=len(self._workers), workers=ready)
        write_crew(self.settings.home, crew)


def run_workers(settings: Settings, listener: socket.socket, url: str, work: Callable[[Seat], int]) -> int:
    """Serve with as many processes as settings say. Raises ``Conflict`` where the system cannot fork."""
    if not hasattr(os, "fork") or not hasattr(signal, "sigtimedwait"):
        raise Conflict("Several workers need Linux; leave --workers away here.", param="server.workers")
    settings.home.mkdir(parents=True, exist_ok=True)
    return Captain(settings, listener, url, work).run()
