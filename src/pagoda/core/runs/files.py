"""JSON on the disk that survives a kill at any instruction: replaced as a whole, or appended line by line.

A reader never sees half a document, and never a line without its end. What the system refuses becomes ``StoreError``.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pagoda.core.errors import StoreError
from pagoda.core.types import Json

_CHUNK = 1 << 20
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn a system error about ``path`` into a sentence."""
    try:
        yield
    except OSError as error:
        raise _fault(error, path) from error


def write_json(path: Path, value: Json, *, durable: bool = True) -> None:
    """Replace the document at ``path``; its directory must exist. ``durable``: it also survives a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    content = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2).encode() + b"\n"
    with translated(path):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            _sync_directory(path.parent)


def read_json(path: Path) -> Json:
    """The document at ``path``. Raises ``FileNotFoundError``, or ``ValueError`` when it is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path.name} is not valid JSON: {error}") from error


def append_line(path: Path, value: Json) -> None:
    """Add one line to ``path``: entirely, or (when the disk is full) not at all."""
    content = json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with translated(path):
        # Opened anew each time, so that a deleted directory is noticed instead of written into.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, content) < len(content):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)


def cut_torn_line(path: Path) -> None:
    """Drop what follows the last complete line of ``path``, the remains of a write that a crash cut short."""
    with translated(path):
        if not path.exists():
            return
        with path.open("r+b") as file:
            content = file.read()
            end = content.rfind(b"\n") + 1
            if end < len(content):
                file.truncate(end)


def read_lines(path: Path, offset: int) -> tuple[list[Json], int]:
    """The complete lines of ``path`` from ``offset`` on, at most about a mebibyte of them, and where they end.

    A line that is not JSON (a disk lost it) is left out.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read(_CHUNK)
            while b"\n" not in content and (more := file.read(_CHUNK)):
                content += more
    except FileNotFoundError:
        return [], offset
    end = content.rfind(b"\n") + 1
    values = []
    for line in content[:end].splitlines():
        try:
            values.append(json.loads(line))
        except ValueError:
            continue
    return values, offset + end


def read_all_lines(path: Path) -> list[Json]:
    """All complete lines of ``path``; none where there is no file."""
    found: list[Json] = []
    place = 0
    while True:
        lines, following = read_lines(path, place)
        if following == place:
            return found
        found += lines
        place = following


def resume_lines(path: Path) -> list[Json]:
    """The lines that an earlier attempt left in a file that is appended to, made ready to be: a torn one is cut off."""
    cut_torn_line(path)
    return read_all_lines(path)


def encode_number(value: float) -> float | str:
    """A number for JSON, which has no NaN and no infinity: a loss that diverged must still be seen."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def decode_number(value: Json) -> float:
    """The inverse of ``encode_number``. Raises ``ValueError`` for anything else."""
    if isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")
    return value


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fault(error: OSError, path: Path) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"The disk is full, so {path} could not be written: free some space, then resume the run.",
            code="store_full",
            retryable=True,
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError) and not path.parent.is_dir():
        return StoreError(f"The directory {path.parent} is gone: somebody deleted or moved it.", code="run_gone")
    reason = error.strerror or str(error)
    return StoreError(f"{path} could not be written ({reason}): check that this user may write there.")
