"""Files of models on disk: checked, placed whole or not at all, by one process at a time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from pagoda.core.errors import StoreError
from pagoda.core.ports import Progress

CHUNK = 1024 * 1024
SPARE_BYTES = 64 * 1024 * 1024
"""Left free beside a model, so that a download does not fill the disk to the last byte."""


def digest_of(path: Path, progress: Progress, stage: str = "check") -> str:
    """The SHA-256 of a file."""
    total = path.stat().st_size
    done = 0
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress(stage, done, total)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Make sure that the file's content is on the disk, not only on its way there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def place(finished: Path, target: Path) -> None:
    """Move a finished file to its place in one step that survives a power cut."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sync(finished)
    os.replace(finished, target)
    if os.name == "posix":
        sync(target.parent)


def write_text(target: Path, text: str) -> None:
    """Write a small file in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        place(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def bytes_under(folder: Path) -> int:
    """How much the files in a folder take; what another process removes meanwhile does not count."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.lstat(os.path.join(parent, name)).st_size
    return size


def need_space(directory: Path, size: int, what: str) -> None:
    """``StoreError`` unless ``size`` more bytes fit beside what is in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < size + SPARE_BYTES:
        raise StoreError(
            f"{what} needs {spell_bytes(size + SPARE_BYTES)} and {directory} has {spell_bytes(free)} free; "
            "free some space or set models.directory to another disk.",
            code="no_space",
        )


def spell_bytes(size: int) -> str:
    """A size for people."""
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.5 or unit == "TB":
            break
    return f"{value:.3g} {unit}"


@contextlib.contextmanager
def stored(what: str, directory: Path) -> Iterator[None]:
    """Give the faults of a disk as ``StoreError``: a full one in the words of ``need_space``, others in their own."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"{what} does not fit on the disk of {directory}; free some space or set models.directory."
            raise StoreError(message, code="no_space") from error
        place_at = error.filename or directory
        raise StoreError(f"{what} could not be kept: {error.strerror or error} ({place_at}).") from error


@contextlib.contextmanager
def locked(path: Path, progress: Progress) -> Iterator[None]:
    """Hold a lock file while the block runs; say so when another process holds it, and wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress("wait", 0, None)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
