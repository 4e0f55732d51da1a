"""Reads a Hugging Face cache that other programs filled, so that nothing is fetched twice. Never writes to it."""

from __future__ import annotations

from pathlib import Path

from pagoda.model.catalog.hub import HubFile, HubRepository
from pagoda.model.catalog.reference import HubReference

_SHA256_DIGITS = 64


def _folder(cache: Path, repository: str) -> Path:
    return cache / ("models--" + repository.replace("/", "--"))


def cached_blob(cache: Path, repository: str, file: HubFile) -> Path | None:
    """The file's content in the cache, which names content by its digest; its size agrees, its digest is unchecked."""
    if not file.digest:
        return None
    blob = _folder(cache, repository) / "blobs" / file.digest
    return blob if blob.is_file() and blob.stat().st_size == file.size else None


def cached_repository(cache: Path, reference: HubReference) -> HubRepository | None:
    """The repository as far as the cache has it at that revision; ``None`` when it has nothing of it."""
    folder = _folder(cache, reference.repository)
    pointer = folder / "refs" / reference.revision
    commit = pointer.read_text(encoding="ascii").strip() if pointer.is_file() else reference.revision
    snapshot = folder / "snapshots" / commit
    if not snapshot.is_dir():
        return None
    files = []
    for path in sorted(snapshot.rglob("*")):
        if path.is_file() and path.is_symlink():
            blob = path.resolve()
            digest = blob.name
            large = len(digest) == _SHA256_DIGITS
            name = path.relative_to(snapshot).as_posix()
            files.append(HubFile(name, blob.stat().st_size, digest if large else "", "" if large else digest))
    return HubRepository(reference.repository, commit, tuple(files))
