"""The record beside a model's files: what they are, so that they can be checked later without the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pagoda.core.ports import Progress
from pagoda.model.catalog.disk import digest_of, write_text
from pagoda.model.catalog.entry import FileSpec

RECORD_NAME = "record.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Files of one model as they were when they came: ``ready`` names the one an engine opens, ``.`` the folder."""

    source: Mapping[str, Any]
    files: tuple[FileSpec, ...]
    ready: str
    revision: str = ""
    """The commit of a hub repository."""
    origin: str = ""
    """Digest of the files a derived model was built from."""
    version: int = 0
    """Version of the recipe that built it."""

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


def read_record(folder: Path) -> Record | None:
    """The record in a folder; ``None`` when there is none, or one that cannot be read."""
    try:
        text = (folder / RECORD_NAME).read_text(encoding="utf-8")
        return TypeAdapter(Record).validate_json(text)
    except (OSError, UnicodeDecodeError, ValidationError):
        return None  # without a readable record the files count as not fetched, and a pull puts that right


def write_record(folder: Path, record: Record) -> None:
    """Write the record; from then on the files count as present."""
    write_text(folder / RECORD_NAME, json.dumps(asdict(record), ensure_ascii=False, indent=1))


def fault_in(folder: Path, record: Record) -> str:
    """The first file that is missing or has another length, in words; empty when there is none."""
    for file in record.files:
        path = folder / file.name
        try:
            size = path.stat().st_size
        except OSError:
            return f"{path} is missing"
        if size != file.size:
            return f"{path} has {size} of {file.size} bytes"
    return ""


def deep_fault_in(folder: Path, record: Record, progress: Progress) -> str:
    """Like ``fault_in``, after reading every file."""
    if fault := fault_in(folder, record):
        return fault
    for file in record.files:
        if digest_of(folder / file.name, progress) != file.sha256:
            return f"{folder / file.name} has another content than it should"
    return ""


def describe_files(folder: Path, names: list[str], progress: Progress) -> tuple[FileSpec, ...]:
    """Sizes and digests of files in a folder."""
    return tuple(
        FileSpec(name=name, size=(folder / name).stat().st_size, sha256=digest_of(folder / name, progress))
        for name in names
    )


def sweep(folder: Path, record: Record) -> None:
    """Remove what the record does not name: leftovers of earlier versions and of cut downloads."""
    keep = {folder / file.name for file in record.files} | {folder / RECORD_NAME}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in keep:
            path.unlink()
