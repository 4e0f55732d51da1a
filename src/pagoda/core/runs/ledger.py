"""All runs of a ``PAGODA_HOME``: create, find, start, resume and cancel them.

The other side, what happens in the process of a run, is ``pagoda.core.runs.execution``.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pagoda.core.errors import Conflict, NotFound, StoreError
from pagoda.core.runs import files
from pagoda.core.runs.comparison import Comparison, compare
from pagoda.core.runs.directory import RunDirectory
from pagoda.core.runs.process import Process, host, is_alive, process_of
from pagoda.core.runs.record import ID, RESUMABLE, Run, check_config, new_id, now
from pagoda.core.runs.registry import RunRegistry
from pagoda.core.runs.versions import versions
from pagoda.core.runs.watching import RunEvent, place_now, watch, watch_async
from pagoda.core.settings import Settings
from pagoda.core.types import Json

COMMAND = (sys.executable, "-m", "pagoda", "runs", "exec")
"""What executes a run; its id and ``--home`` are added."""

_START_SECONDS = 2.0  # readers hold the lock for an instant when they look whether a run on another host lives


class Runs:
    """The runs under ``settings.runs_directory``, of the kinds in ``registry``."""

    def __init__(self, settings: Settings, registry: RunRegistry, *, command: Sequence[str] = COMMAND) -> None:
        self.directory = settings.runs_directory
        self.registry = registry
        self._home = settings.home
        self._command = tuple(command)

    def create(
        self,
        kind: str,
        config: Mapping[str, Json],
        *,
        seed: int | None = None,
        name: str = "",
        parent: str | None = None,
    ) -> Run:
        """A new run, not started. Without a ``seed`` one is drawn and kept, so that the run can be repeated."""
        self.registry.check(kind)
        plain = check_config(config)
        with files.translated(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            working_directory = str(Path.cwd())
        while True:
            moment = now()
            path = self.directory / new_id(kind, moment)
            run = Run(
                id=path.name,
                directory=path,
                kind=kind,
                name=name,
                status="created",
                created=moment,
                seed=secrets.randbelow(2**31) if seed is None else seed,
                parent=parent,
                config=plain,
                versions=versions(),
                working_directory=working_directory,
            )
            if self._place(run):
                return run

    def get(self, run_id: str) -> Run:
        """The run as it stands now. Raises ``NotFound``."""
        return self._at(run_id).read()

    def resolve(self, text: str) -> str:
        """The id that ``text`` means: an id, or the beginning or end of exactly one. Raises ``NotFound``."""
        ids = self._ids()
        if text in ids:
            return text
        meant = [run_id for run_id in ids if text and (run_id.startswith(text) or run_id.endswith(text))]
        if len(meant) == 1:
            return meant[0]
        if meant:
            some = ", ".join(meant[-3:])
            raise NotFound(f"{text!r} may mean {len(meant)} runs ({some}): give more of the id.", param="run")
        raise NotFound(f"There is no run {text!r}: see `pagoda runs list`.", param="run")

    def find(self, *, kind: str | None = None, status: str | None = None, limit: int | None = None) -> list[Run]:
        """Runs, newest first; one that cannot be read has the status ``broken`` and says why."""
        found: list[Run] = []
        for run_id in reversed(self._ids()):
            if limit is not None and len(found) >= limit:
                break
            try:
                run = RunDirectory(self.directory / run_id).read()
            except NotFound:
                continue  # deleted since we looked
            if (kind is None or run.kind == kind) and (status is None or run.status == status):
                found.append(run)
        return found

    def start(self, run_id: str, environment: Mapping[str, str] | None = None) -> Run:
        """Execute a created run in a process of its own, which outlives this one. Raises ``Conflict``.

        ``environment`` is that of this process, in place of ours.
        """
        return self._launch(run_id, environment, resume=False)

    def resume(self, run_id: str, environment: Mapping[str, str] | None = None) -> Run:
        """Execute a run again, in its directory, after it failed, was cancelled or lost its process; or at last."""
        return self._launch(run_id, environment, resume=True)

    def begin(self, kind: str, config: Mapping[str, Json], *, seed: int | None = None) -> tuple[Run, str | None]:
        """The run of a config, executed: the one that did not end, or a new one; and from where to watch it."""
        before = next((run for run in self.find(kind=kind) if run.config == config and run.status != "done"), None)
        if before is None:
            return self.start(self.create(kind, config, seed=seed).id), None
        return self.go_on(before)

    def go_on(self, run: Run) -> tuple[Run, str | None]:
        """A run that did not end: as it is while it is being executed, else resumed; and from where to watch it."""
        if run.status in ("created", "running") and run.process is not None:
            return run, None
        place = self.place_now(run.id)
        return self.resume(run.id), place

    def cancel(self, run_id: str, *, at_once: bool = False) -> Run:
        """Ask the run to stop; it does so at its next step, and is ended after a grace. Does not wait for it.

        ``at_once`` ends its process now. Raises ``Conflict`` for a run that has ended.
        """
        directory = self._at(run_id)
        run = directory.read()
        if run.status in ("done", "failed", "cancelled", "broken"):
            raise Conflict(f"The run {run_id} is {run.status} already.")
        files.write_json(directory.cancel, {"at": now().isoformat()})
        process = run.process
        if process is not None and is_alive(process):
            try:
                _end_process(process.pid, at_once=at_once)
            except ProcessLookupError:
                pass  # it ended by itself meanwhile; how, its files say
            except PermissionError as error:
                raise StoreError(f"The run {run_id} belongs to another user, who alone may cancel it.") from error
        elif run.status != "running":  # one that runs on another machine sees the file
            with directory.locked(_START_SECONDS):
                stored = directory.read_stored()
                if stored.status in ("created", "running", "interrupted"):
                    directory.write(replace(stored, status="cancelled", finished=now()))
                    _remove(directory.cancel)
        return directory.read()

    def watch(self, run_id: str, *, after: str | None = None) -> Iterator[RunEvent]:
        """What happens in the run, from its beginning (or the event ``after``) to its end."""
        return watch(self._at(run_id), after=after)

    def watch_async(self, run_id: str, *, after: str | None = None) -> AsyncIterator[RunEvent]:
        """The same for an event loop."""
        return watch_async(self._at(run_id), after=after)

    def place_now(self, run_id: str) -> str:
        """The id to watch ``after`` in order to see only what happens from now on."""
        return place_now(self._at(run_id))

    def compare(self, first: str, second: str) -> Comparison:
        """In what two runs differ, and how their metrics came out."""
        return compare(self.get(first), self.get(second))

    def _ids(self) -> list[str]:
        try:
            return sorted(entry.name for entry in self.directory.iterdir() if ID.fullmatch(entry.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{self.directory} cannot be read ({error.strerror}): check PAGODA_HOME.") from error

    def _at(self, run_id: str) -> RunDirectory:
        if not ID.fullmatch(run_id) or not (self.directory / run_id).is_dir():
            raise NotFound(f"There is no run {run_id!r}: see `pagoda runs list`.", param="run")
        return RunDirectory(self.directory / run_id)

    def _place(self, run: Run) -> bool:
        """Make the directory; it appears complete or not at all. False when another run has the id."""
        draft = RunDirectory(self.directory / f".new-{run.id}")
        with files.translated(draft.path):
            draft.path.mkdir()
            try:
                draft.artifacts.mkdir()
                draft.checkpoints.mkdir()
                draft.log.touch()
                draft.metrics.touch()
                created = {"time": run.created.isoformat(), "type": "status", "data": {"status": "created"}}
                files.append_line(draft.events, created)
                draft.write(run)
                draft.path.rename(run.directory)
            except BaseException as error:
                shutil.rmtree(draft.path, ignore_errors=True)
                if isinstance(error, OSError) and error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                    return False
                raise
        return True

    def _launch(self, run_id: str, environment: Mapping[str, str] | None, *, resume: bool) -> Run:
        directory = self._at(run_id)
        run = directory.read()
        _check_startable(run, resume)
        with directory.locked(_START_SECONDS):
            run = directory.read_stored()
            # Another starter may have been faster; its child is alive but has not taken the lock yet.
            if run.process is not None and is_alive(run.process):
                raise Conflict(
                    f"The run {run_id} is being started already: watch it with `pagoda runs watch {run_id}`."
                )
            _remove(directory.cancel)
            pid = self._spawn(directory, run, environment)
            directory.write_process(process_of(pid) or Process(pid, "ended at once", host()), now())
            # From here on the run counts as not ended, so that nobody who watches it takes its last end for this one.
            directory.write(replace(run, status="created", finished=None, error=None, result=None))
        return directory.read()

    def _spawn(self, directory: RunDirectory, run: Run, environment: Mapping[str, str] | None) -> int:
        command = [*self._command, run.id, "--home", str(self._home)]
        place = run.working_directory if Path(run.working_directory).is_dir() else None
        with files.translated(directory.log), directory.log.open("ab") as log:
            child = subprocess.Popen(
                command,
                cwd=place,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # Reaps the child while this process lives; afterwards the system does.
        threading.Thread(target=child.wait, name=f"reap-{run.id}", daemon=True).start()
        return child.pid


def _end_process(pid: int, *, at_once: bool) -> None:
    if not at_once:
        os.kill(pid, signal.SIGTERM)
    elif os.getpgid(pid) == pid:  # its own group, with the processes that it started
        os.killpg(pid, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGKILL)


def _remove(path: Path) -> None:
    with files.translated(path):
        path.unlink(missing_ok=True)


def _check_startable(run: Run, resume: bool) -> None:
    fresh = run.status == "created" and run.process is None
    if fresh or (resume and run.status in RESUMABLE):
        return
    if run.status in ("created", "running"):
        raise Conflict(f"The run {run.id} is being executed already: watch it with `pagoda runs watch {run.id}`.")
    if run.status == "broken":
        raise Conflict(f"The run {run.id} is broken: {run.error}")
    if run.status in RESUMABLE:
        raise Conflict(f"The run {run.id} is {run.status}: continue it with `pagoda runs resume {run.id}`.")
    raise Conflict(f"The run {run.id} is {run.status} already: create a new one to do it again.")
