"""What the work of a run is given: its config and seed, its places for files, and ways to report and to be stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import SupportsFloat

from pagoda.core.errors import InvalidRequest
from pagoda.core.runs import files
from pagoda.core.runs.directory import RunDirectory
from pagoda.core.runs.lines import event_line, metric_line
from pagoda.core.runs.record import Run, check_config, now
from pagoda.core.settings import Settings
from pagoda.core.types import Json

_RESERVED = ("status", "progress", "metric", "end")
_PROGRESS_SECONDS = 0.2


class RunStopped(BaseException):
    """Asked to stop: passes through the work to whoever executes it. A signal, not an error, hence no ``Exception``."""


class StopFlag:
    """Set once, by a signal or by the watch over ``cancel.json``; holds why."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.fault: Exception | None = None

    def set(self, fault: Exception | None = None) -> None:
        """Ask the work to stop; with a ``fault``, to fail with it."""
        if not self._event.is_set():
            self.fault = fault
            self._event.set()

    def is_set(self) -> bool:
        """Whether the work shall stop."""
        return self._event.is_set()


class RunContext:
    """The run as its own work sees it. All methods may be called from any thread.

    A run may be killed at any moment and executed again: the work saves what it needs for that under
    ``checkpoints`` (or, if it is small, with ``save_state``) and looks there first when it is ``resumed``.
    """

    def __init__(self, run: Run, directory: RunDirectory, settings: Settings, stop: StopFlag) -> None:
        self.id = run.id
        self.config: Mapping[str, Json] = run.config
        self.seed = run.seed
        self.settings = settings
        self.attempt = run.attempt
        self.directory: Path = directory.path
        self._files = directory
        self._stop = stop
        self._lock = threading.Lock()
        self._stage = ""
        self._written = float("-inf")
        self._unwritten: dict[str, Json] | None = None

    @property
    def resumed(self) -> bool:
        """Whether the run was executed before, so that there may be checkpoints."""
        return self.attempt > 1

    @property
    def artifacts(self) -> Path:
        """Where results go."""
        return self._files.artifacts

    @property
    def checkpoints(self) -> Path:
        """Where the work keeps what it needs to be resumed."""
        return self._files.checkpoints

    def save_state(self, state: Json) -> None:
        """Keep a small JSON value for the next attempt, in place of the last one; atomic."""
        files.write_json(self.checkpoints / "state.json", check_config(state, "state"))

    def load_state(self) -> Json:
        """The value that ``save_state`` kept last, ``None`` if there is none."""
        try:
            return files.read_json(self.checkpoints / "state.json")
        except FileNotFoundError:
            return None

    def progress(self, stage: str, done: int, total: int | None = None) -> None:
        """Say how far the work has come; cheap enough for every step. Raises ``RunStopped`` when it shall stop."""
        self.raise_if_cancelled()
        moment = time.monotonic()
        with self._lock:
            self._unwritten = {"stage": stage, "done": done, "total": total, "at": now().isoformat()}
            if stage == self._stage and done != total and moment - self._written < _PROGRESS_SECONDS:
                return
            self._stage, self._written = stage, moment
            self._write_progress()

    def flush(self) -> None:
        """Write the last progress, which may have come too soon after the one before it."""
        with self._lock:
            self._write_progress()

    def metric(self, step: int, **values: SupportsFloat) -> None:
        """Record numbers at a step. After a resumption, steps recorded again replace those of the attempt before."""
        with self._lock:
            files.append_line(self._files.metrics, metric_line(step, values, self.attempt))

    def event(self, kind: str, **data: Json) -> None:
        """Record that something happened, for those who watch."""
        if kind in _RESERVED:
            raise InvalidRequest(f"An event cannot be called {kind!r}: the run mechanism uses that name.")
        append_event(self._files, kind, check_config(data, kind), self._lock)

    def log(self, text: str) -> None:
        """Add a line to ``log.txt``."""
        append_log(self._files, text)

    def _write_progress(self) -> None:
        document, self._unwritten = self._unwritten, None
        if document is not None:
            files.write_json(self._files.status, document, durable=False)

    @property
    def cancelled(self) -> bool:
        """Whether the work shall stop, because somebody cancelled it or the system shuts down.

        Work that sees this may tidy up and then must call ``raise_if_cancelled``: to return means to be done.
        """
        return self._stop.is_set()

    def raise_if_cancelled(self) -> None:
        """Raise ``RunStopped`` when the work shall stop."""
        if self._stop.is_set():
            if self._stop.fault is not None:
                raise self._stop.fault
            raise RunStopped


def append_event(directory: RunDirectory, kind: str, data: Json, lock: threading.Lock) -> None:
    """Add one line to ``events.jsonl``."""
    with lock:
        files.append_line(directory.events, event_line(kind, data))


def append_log(directory: RunDirectory, text: str) -> None:
    """Add a line, with the time, to ``log.txt``."""
    with files.translated(directory.log), directory.log.open("a", encoding="utf-8") as file:
        file.write(f"{now():%Y-%m-%d %H:%M:%S} {text}\n")
