"""The process of a run: takes the lock, does the work, and writes down how it ended.

Started by ``Runs.start`` through ``pagoda runs exec``. Whatever happens to this process, the files say what a reader
needs: as long as it lives it is in ``heartbeat.json``, and its last act is to write the final status.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from pagoda.core.errors import Conflict, NotFound, PagodaError, StoreError
from pagoda.core.runs import files
from pagoda.core.runs.context import RunContext, RunStopped, StopFlag, append_event, append_log
from pagoda.core.runs.directory import RunDirectory
from pagoda.core.runs.process import this_process
from pagoda.core.runs.record import ID, Run, Status, check_config, now
from pagoda.core.runs.registry import RunFunction, RunRegistry
from pagoda.core.runs.versions import versions
from pagoda.core.settings import Settings
from pagoda.core.types import Json

GRACE_SECONDS = 30.0
"""How long work that was asked to stop may go on before its process is killed."""

_LOCK_SECONDS = 10.0  # the starter holds the lock until it has written down who we are
_WATCH_SECONDS = 0.5
_RESERVE_BYTES = 64 * 1024


def execute(run_id: str, registry: RunRegistry, settings: Settings, *, grace: float = GRACE_SECONDS) -> Run:
    """Do the work of a run in this process and give the run as it ended: done, failed, cancelled or interrupted.

    Raises ``Conflict`` when it is being executed or is done already, and ``StoreError`` when not even its end could
    be written down.
    """
    path = settings.runs_directory / run_id
    if not ID.fullmatch(run_id) or not path.is_dir():
        raise NotFound(f"There is no run {run_id!r}: see `pagoda runs list`.", param="run")
    directory = RunDirectory(path)
    with directory.locked(_LOCK_SECONDS):
        return _Execution(directory, registry, settings, grace).perform()


class _Execution:
    """One attempt."""

    def __init__(self, directory: RunDirectory, registry: RunRegistry, settings: Settings, grace: float) -> None:
        self.directory = directory
        self.registry = registry
        self.settings = settings
        self.grace = grace
        self.stop = StopFlag()
        self.began = time.monotonic()
        self.lock = threading.Lock()
        self.reserve = directory.path / ".reserve"

    def perform(self) -> Run:
        run = self._begin()
        result: Json = None
        try:
            with _signals(self.stop), _overseer(self.directory, self.stop, self.grace):
                function = self.registry.resolve(run.kind)
                context = RunContext(run, self.directory, self.settings, self.stop)
                context.raise_if_cancelled()
                try:
                    result = check_config(_call(function, context), "result")
                finally:
                    context.flush()
        except RunStopped:
            return self._end(run, "cancelled" if self.directory.cancel.exists() else "interrupted")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever ended the work, the run must say so
            return self._fail(run, error)
        return self._end(run, "done", result=result)

    def _begin(self) -> Run:
        run = self.directory.read_stored()
        if run.status == "done":
            raise Conflict(f"The run {run.id} is done already: create a new one to do it again.")
        with files.translated(self.directory.path):
            for left_over in self.directory.path.glob(".*.tmp"):
                left_over.unlink(missing_ok=True)
        files.cut_torn_line(self.directory.events)
        files.cut_torn_line(self.directory.metrics)
        moment = now()
        self.directory.write_process(this_process(), moment)
        self._keep_reserve()
        run = replace(
            run,
            status="running",
            started=run.started or moment,
            finished=None,
            attempt=run.attempt + 1,
            error=None,
            result=None,
            versions=versions(),
        )
        self.directory.write(run)
        self._tell(run)
        return run

    def _fail(self, run: Run, error: BaseException) -> Run:
        if isinstance(error, PagodaError):
            sentence = error.message
        else:
            lines = str(error).strip().splitlines()
            sentence = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        self._release_reserve()
        try:  # before the status: whoever sees the end finds its reason
            append_log(self.directory, "".join(traceback.format_exception(error)).rstrip())
        finally:
            run = self._end(run, "failed", error=sentence)
        return run

    def _end(self, run: Run, status: Status, *, error: str | None = None, result: Json = None) -> Run:
        self._release_reserve()
        seconds = run.seconds + time.monotonic() - self.began
        run = replace(run, status=status, finished=now(), seconds=round(seconds, 3), error=error, result=result)
        self._tell(run)
        self.directory.write(run)
        with files.translated(self.directory.path):
            self.directory.heartbeat.unlink(missing_ok=True)
            if status == "cancelled":
                self.directory.cancel.unlink(missing_ok=True)
        return run

    def _tell(self, run: Run) -> None:
        data: dict[str, Json] = {"status": run.status, "attempt": run.attempt}
        if run.error is not None:
            data["error"] = run.error
        append_event(self.directory, "status", data, self.lock)

    def _keep_reserve(self) -> None:
        """Occupy a little space, to be given back when the disk is full, so that the run can still say so."""
        with files.translated(self.reserve), self.reserve.open("wb") as file:
            file.write(b"\0" * _RESERVE_BYTES)

    def _release_reserve(self) -> None:
        with files.translated(self.reserve):
            self.reserve.unlink(missing_ok=True)


def _call(function: RunFunction, context: RunContext) -> Json:
    result = function(context)
    if inspect.isawaitable(result):

        async def wait() -> Json:
            return await result

        return asyncio.run(wait())
    return result


@contextmanager
def _signals(stop: StopFlag) -> Iterator[None]:
    """Let SIGTERM (a cancellation, or the system's shutdown) and Ctrl-C ask the work to stop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _overseer(directory: RunDirectory, stop: StopFlag, grace: float) -> Iterator[None]:
    """A thread that gives signs of life, looks for ``cancel.json``, and ends work that does not stop."""
    over = threading.Event()
    thread = threading.Thread(target=_oversee, args=(directory, stop, grace, over), name="run-overseer", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _oversee(directory: RunDirectory, stop: StopFlag, grace: float, over: threading.Event) -> None:
    asked: float | None = None
    while True:
        if directory.cancel.exists():
            stop.set()
        try:
            os.utime(directory.heartbeat)  # needs no space on the disk
        except OSError as error:
            gone = StoreError(f"The run's directory is gone ({error.strerror}), so the run ends.", code="run_gone")
            stop.set(gone)
        if stop.is_set():
            asked = time.monotonic() if asked is None else asked
            if time.monotonic() - asked >= grace:
                _kill(directory.path, grace)
        if over.wait(min(_WATCH_SECONDS, max(grace, 0.01))):
            return


def _kill(path: Path, grace: float) -> None:
    """End this process and those it started; readers conclude the status from its absence."""
    print(f"The run {path.name} did not stop within {grace:g} s of being asked and is killed.", file=sys.stderr)  # noqa: T201
    sys.stderr.flush()
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
