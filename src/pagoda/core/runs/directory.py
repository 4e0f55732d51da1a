"""The directory of one run: where its files are, how it stands, and the lock that makes its execution single.

How a run stands is decided by whoever reads it. ``run.json`` holds the last word of the executing process; if that
word is ``running`` but the process is gone, the run was interrupted (or cancelled, if somebody had asked for it). No
clock takes part in this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pagoda.core.errors import Conflict, NotFound, StoreError
from pagoda.core.runs import files
from pagoda.core.runs.process import Process, is_alive
from pagoda.core.runs.record import Run, Status, broken_run, from_document, to_document, with_progress
from pagoda.core.types import Json

_READS = 20  # a run would have to be resumed and killed this often while it is being read


class RunDirectory:
    """The files of one run. Making an object touches nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.document = path / "run.json"
        self.status = path / "status.json"
        self.heartbeat = path / "heartbeat.json"
        self.cancel = path / "cancel.json"
        self.events = path / "events.jsonl"
        self.metrics = path / "metrics.jsonl"
        self.log = path / "log.txt"
        self.checkpoints = path / "checkpoints"
        self.artifacts = path / "artifacts"

    def read(self) -> Run:
        """The run as it stands now. Raises ``NotFound`` when the directory is gone; never fails otherwise."""
        run = self._snapshot()
        for _ in range(_READS):
            if not self._is_abandoned(run):
                return run
            # The process may have written its last word after we read, and before we looked for it.
            again = self._snapshot()
            if (again.status, again.attempt, again.process) == (run.status, run.attempt, run.process):
                return self._abandoned(again)
            run = again
        return run

    def read_stored(self) -> Run:
        """The last word of ``run.json``. Raises ``StoreError`` for a broken one."""
        run = self._snapshot()
        if run.status == "broken":
            raise StoreError(f"The run {run.id} is broken: {run.error}", code="run_broken")
        return run

    def write(self, run: Run) -> None:
        """Replace ``run.json``; only the holder of the lock may."""
        files.write_json(self.document, to_document(run))

    def write_process(self, process: Process, moment: datetime) -> None:
        """Say who executes the run from now on."""
        identity = {"pid": process.pid, "started": process.started, "host": process.host, "at": moment.isoformat()}
        files.write_json(self.heartbeat, identity)

    @contextmanager
    def locked(self, patience: float) -> Iterator[None]:
        """Hold the run's lock. Raises ``Conflict`` when another process has it for longer than ``patience`` seconds."""
        if not self.path.is_dir():
            raise _missing(self.path)
        lock = self._lock()
        with files.translated(self.path / "lock"):
            try:
                lock.acquire(timeout=patience, poll_interval=0.02)
            except Timeout as error:
                name = self.path.name
                raise Conflict(
                    f"The run {name} is being executed already: watch it with `pagoda runs watch {name}`."
                ) from error
        try:
            yield
        finally:
            lock.release()

    def _snapshot(self) -> Run:
        try:
            run = from_document(self.path, files.read_json(self.document))
        except FileNotFoundError:
            if not self.path.is_dir():
                raise _missing(self.path) from None
            return broken_run(self.path, "run.json is missing")
        except ValueError as error:
            return broken_run(self.path, str(error))
        run = with_progress(run, _read_or_none(self.status))
        return replace(run, process=_process(_read_or_none(self.heartbeat)), heartbeat=_modified(self.heartbeat))

    def _is_abandoned(self, run: Run) -> bool:
        if run.status == "created" and run.process is None:
            return False  # nobody has started it yet
        if run.status not in ("created", "running"):
            return False
        alive = None if run.process is None else is_alive(run.process)
        return not self._is_locked() if alive is None else not alive

    def _abandoned(self, run: Run) -> Run:
        status: Status = "cancelled" if self.cancel.exists() else "interrupted"
        return replace(run, status=status, finished=run.finished or run.heartbeat)

    def _is_locked(self) -> bool:
        """Whether a living process holds the lock, wherever it runs: the kernel lets go of it at any death."""
        if not self.path.is_dir():
            raise _missing(self.path)  # else the lock would bring it back
        lock = self._lock()
        with files.translated(self.path / "lock"):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return True
        lock.release()
        return False

    def _lock(self) -> FileLock:
        return FileLock(self.path / "lock")


def _missing(path: Path) -> NotFound:
    return NotFound(f"There is no run {path.name}: see `pagoda runs list`.", param="run")


def _read_or_none(path: Path) -> Json:
    try:
        return files.read_json(path)
    except (FileNotFoundError, ValueError):
        return None


def _process(document: Any) -> Process | None:
    if not isinstance(document, dict):
        return None
    pid, started, host = (document.get(key) for key in ("pid", "started", "host"))
    if not isinstance(pid, int) or not isinstance(started, str) or not isinstance(host, str):
        return None
    return Process(pid, started, host)


def _modified(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None
