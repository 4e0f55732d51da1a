"""What makes a model's answers its own: a digest of its entry and of the files behind it. Never touches the network.

A field of ``ModelEntry`` is part of it unless it is named in ``_SILENT``, so that a field added later is not forgotten.
Files with a known SHA-256 count by that; files at a path of the user's own by name, length, time and place on the disk,
since reading gigabytes for every request is not an option.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from pagoda.model.catalog.entry import ADAPTER_FILES, Adapter, Derived, HubFiles, LocalPath, ModelEntry, Pool
from pagoda.model.catalog.record import RECORD_NAME, read_record
from pagoda.model.catalog.store import ModelStore

_SILENT = {
    "description": "people read it",
    "licence": "people read it",
    "languages": "people read it",
    "aliases": "other names of the same model",
    "builtin": "who brought the entry",
    "internal": "whether it is listed",
}


class ModelIdentities:
    """Digests of models, with the records of their files read again only when those change.

    ``find`` gives the entry of a pool's member and of an adapter's base.
    """

    def __init__(self, store: ModelStore, find: Callable[[str], ModelEntry]) -> None:
        self._store = store
        self._find = find
        self._records: dict[Path, tuple[tuple[int, int, int], list[list[str]]]] = {}
        self._digests: dict[str, tuple[ModelEntry, list[list[Any]], bytes]] = {}

    def of(self, model: ModelEntry) -> bytes | None:
        """The model's digest; ``None`` while its files are not here, so that nobody can say which they will be."""
        source = model.source
        files: list[list[Any]] | None = []
        if isinstance(source, LocalPath):
            files = _stats(Path(source.path))
        elif isinstance(source, Adapter):
            files = self._adapted(source)
        elif isinstance(source, Pool):
            files = self._members(source)
        elif isinstance(source, HubFiles | Derived):
            files = self._recorded(self._store.folder(model) / RECORD_NAME)
        if files is None:
            return None
        last = self._digests.get(model.id)
        if last is not None and last[0] is model and last[1] == files:
            return last[2]
        told = {
            field.name: getattr(model, field.name) for field in dataclasses.fields(model) if field.name not in _SILENT
        }
        parts = [told, type(source).__name__, files]
        digest = hashlib.blake2b(orjson.dumps(parts, default=_plain, option=_OPTIONS), digest_size=16).digest()
        self._digests[model.id] = (model, files, digest)
        return digest

    def _adapted(self, source: Adapter) -> list[list[Any]] | None:
        """An adapter's files, and what its base is."""
        base = self.of(self._find(source.base))
        own = [_stats(Path(source.path) / name) for name in ADAPTER_FILES]
        if base is None or None in own:
            return None
        return [[source.base, base.hex()], *(each for found in own if found is not None for each in found)]

    def _members(self, source: Pool) -> list[list[Any]] | None:
        """Names and digests of a pool's models on this machine; of what stands at an address nothing is known."""
        found = [(name, self.of(self._find(name))) for name in source.members if " " not in name]
        if any(digest is None for _, digest in found):
            return None
        return [[name, digest.hex()] for name, digest in found if digest is not None]

    def _recorded(self, path: Path) -> list[list[str]] | None:
        """Names and digests of the files that a record names."""
        try:
            about = path.stat()
        except OSError:
            return None
        signature = (about.st_mtime_ns, about.st_size, about.st_ino)
        if path not in self._records or self._records[path][0] != signature:
            record = read_record(path.parent)
            if record is None:
                return None
            self._records[path] = (signature, sorted([file.name, file.sha256] for file in record.files))
        return self._records[path][1]


_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS


def _stats(path: Path) -> list[list[Any]] | None:
    try:
        paths = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        found = [(each, each.stat()) for each in paths]
    except OSError:
        return None
    return [[str(each), about.st_size, about.st_mtime_ns, about.st_ino] for each, about in found]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in a model's identity")
