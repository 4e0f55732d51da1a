"""The output of a batch on the disk: appended line by line, so that a kill loses no line and repeats none.

A line is one ``write``; what a crash tore is cut off when the files are opened again, and the lines in them say what
is done. Answers go to one file, refusals and failures to another beside it, as OpenAI's batches have it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from pagoda.core.errors import Conflict, StoreError
from pagoda.core.runs.files import translated

_COUNTED = (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"))


class AnswerFiles:
    """The two files, held open and locked by the one process that writes them. Use in ``with``."""

    def __init__(self, output: Path, errors: Path) -> None:
        self._paths = (output, errors)
        self._handles: dict[Path, int] = {}
        self._unsynced: set[int] = set()
        self.done: set[str] = set()
        """``custom_id`` of every line that has an answer or a failure."""
        self.completed = 0
        self.failed = 0
        self.usage = {name: 0 for name, _ in _COUNTED}

    def __enter__(self) -> AnswerFiles:
        """Take the files over and read what is done. Raises ``Conflict`` when another process writes them."""
        output, errors = self._paths
        try:
            self._open(output)
            for path in (output, errors):
                for row in _kept(path):
                    self._count(row, failed=path == errors)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        """Make everything durable, and let go."""
        try:
            self.sync()
        finally:
            self._close()

    def add(self, row: Mapping[str, Any], *, failed: bool) -> None:
        """Append the answer (or failure) to a line. Raises ``StoreError``, and then has added nothing."""
        if row["custom_id"] in self.done:
            raise RuntimeError(f"line {row['custom_id']} is answered twice")
        path = self._paths[failed]
        handle = self._handles.get(path)
        if handle is None:
            handle = self._open(path)
        content = orjson.dumps(row) + b"\n"
        with translated(path):
            size = os.fstat(handle).st_size
            try:
                written = os.write(handle, content)
                if written < len(content):  # the disk is full: the next write says so
                    os.write(handle, content[written:])
            except OSError:
                os.ftruncate(handle, size)
                raise
        self._unsynced.add(handle)
        self._count(row, failed=failed)

    def sync(self) -> None:
        """Let what was added survive a power cut too."""
        while self._unsynced:
            os.fsync(self._unsynced.pop())

    def _open(self, path: Path) -> int:
        with translated(path):
            handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self._handles[path] = handle
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"{path} is being written by another batch; wait for it or choose another file.") from error
        return handle

    def _count(self, row: Mapping[str, Any], *, failed: bool) -> None:
        self.done.add(row["custom_id"])
        self.failed += failed
        self.completed += not failed
        if not failed:
            usage = row["response"]["body"].get("usage") or {}
            for name, older in _COUNTED:
                self.usage[name] += usage.get(name, usage.get(older, 0))

    def _close(self) -> None:
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()


def _kept(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file; a torn last one is cut off. Raises ``StoreError`` for damage before that."""
    if not path.exists():
        return
    with translated(path), path.open("r+b") as file:
        place = 0
        for raw in file:
            try:
                if not raw.endswith(b"\n"):
                    raise ValueError("no end of line")
                row = orjson.loads(raw)
                row["custom_id"], row["response"]
            except (ValueError, KeyError, TypeError) as error:
                if file.read(1):
                    raise StoreError(f"{path} is damaged at byte {place}: repair or remove it.") from error
                file.truncate(place)
                return
            place += len(raw)
            yield row
