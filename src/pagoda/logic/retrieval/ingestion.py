"""Files taken into a collection: found, hashed, and only what changed is read, split and embedded again.

Each document is one transaction, so that work that was interrupted goes on where it was when it is asked for again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pagoda.core.errors import ContextTooLong, Forbidden, InvalidRequest, LimitExceeded, NotFound, Rejected, UserError
from pagoda.core.ports import Inference, Progress
from pagoda.core.storage.text import storable
from pagoda.core.types import Call, Embed
from pagoda.logic.retrieval.book import CollectionBook, Origin
from pagoda.logic.retrieval.collection import Chunk, Collection, DocumentRow, Tags
from pagoda.logic.retrieval.document import Document, heading_at
from pagoda.logic.retrieval.reading import KINDS, MOST_BYTES, UNREAD, read_document

LONGEST_NAME = 500
"""Of a file that is sent, in characters."""

_TOGETHER = 32  # texts in one request for embeddings
_HEADING_CHARACTERS = 100  # of a chunk's headings, that are embedded with it


@dataclass(slots=True)
class Report:
    """What became of the files."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    """Each from its old place to its new one, with all its chunks."""
    removed: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Each with what is wrong, in a sentence."""
    unchanged: int = 0
    chunks: int = 0
    """That were embedded."""

    def add(self, other: Report) -> None:
        """What became of further files."""
        for name in ("added", "changed", "renamed", "removed", "failed", "unchanged", "chunks"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "added": self.added,
            "changed": self.changed,
            "renamed": [{"source": source, "now": new} for source, new in self.renamed],
            "removed": self.removed,
            "failed": [{"source": source, "error": error} for source, error in self.failed],
            "unchanged": self.unchanged,
            "chunks": self.chunks,
        }


class Ingestion:
    """Takes files in, through one door."""

    def __init__(self, book: CollectionBook, inference: Callable[[], Inference]) -> None:
        self._book = book
        self._inference = inference

    async def take(
        self, collection: Collection, roots: Sequence[Path], call: Call, progress: Progress, tags: Tags | None = None
    ) -> Report:
        """Bring a collection up to what lies under ``roots`` (files and folders), each with these ``tags`` if given.

        What has vanished below them leaves, what was only renamed is not embedded again; what cannot be read is named
        in the report, leaves too, and the rest goes on. Raises ``InvalidRequest`` for a root that does not exist,
        ``NotFound`` for a collection that was deleted, ``LimitExceeded``, and what else the door raises.
        """
        roots = [root.absolute() for root in roots]
        paths = await asyncio.to_thread(_find, roots)
        kept = {row.source: row for row in await self._book.documents(collection)}
        there = {storable(str(path)) for path in paths}
        vanished = {row.digest: row for row in kept.values() if row.source not in there and _below(row.source, roots)}
        report = Report()
        for done, path in enumerate(paths):
            progress("ingest", done, len(paths))
            source = storable(str(path))
            try:
                data = await asyncio.to_thread(_read, path)
                origin = Origin(source=source, digest=_digest(data), size=len(data), tags=tags)
                before = kept.get(source)
                if before is None and (old := _moved(origin, vanished)) is not None:
                    before = await self._move(collection, old, origin, report)
                    del vanished[origin.digest], kept[old.source]
                await self._put(collection, origin, data, before, call, report)
            except (NotFound, LimitExceeded):  # no collection or model, or no more for anybody: nothing of the file
                raise
            except (UserError, ContextTooLong, Rejected) as error:
                report.failed.append((source, error.message))
        progress("ingest", len(paths), len(paths))
        failed = {source for source, _ in report.failed}
        gone = [name for name in kept if name in failed or (name not in there and _below(name, roots))]
        await self._book.remove(collection, gone)
        report.removed = sorted(gone)
        return report

    async def take_upload(
        self, collection: Collection, name: str, data: bytes, call: Call, tags: Tags | None = None
    ) -> Report:
        """Take in one file that was sent, under its name. Raises what is wrong with it, and as ``take``."""
        source = upload_name(name)
        before = await self._book.of_source(collection, source)
        if before is not None and not before.tags.visible_to(call.key_id):
            raise Forbidden(f"There is a document {source} already, which this key may not see.")
        report = Report()
        origin = Origin(source=source, digest=_digest(data), size=len(data), tags=tags)
        await self._put(collection, origin, data, before, call, report)
        return report

    async def _put(
        self,
        collection: Collection,
        origin: Origin,
        data: bytes,
        before: DocumentRow | None,
        call: Call,
        report: Report,
    ) -> None:
        """Take in what differs from what is kept."""
        if before is not None and before.digest == origin.digest:
            if origin.tags is not None and origin.tags != before.tags:
                await self._book.tag(collection, origin.source, origin.tags)
            report.unchanged += 1
            return
        document = await asyncio.to_thread(read_document, origin.source, data)
        chunks = await self._chunks(collection, document, call)
        await self._book.put(collection, origin, document, chunks)
        (report.added if before is None else report.changed).append(origin.source)
        report.chunks += len(chunks)

    async def _move(self, collection: Collection, old: DocumentRow, origin: Origin, report: Report) -> DocumentRow:
        await self._book.rename(collection, old.source, origin.source)
        report.renamed.append((old.source, origin.source))
        return replace(old, source=origin.source)

    async def _chunks(self, collection: Collection, document: Document, call: Call) -> list[Chunk]:
        text = document.text
        spans = await asyncio.to_thread(collection.plan.splitter().split, text)
        told = [span for span in spans if not text[span.start : span.end].isspace()]  # nothing is said by blanks
        chunks: list[Chunk] = []
        for begin in range(0, len(told), _TOGETHER):
            some = told[begin : begin + _TOGETHER]
            headings = [heading_at(document.headings, _first_letter(text, span.start)) for span in some]
            inputs = tuple(
                f"{heading[-_HEADING_CHARACTERS:]}\n{text[span.start : span.end]}".strip()
                for heading, span in zip(headings, some, strict=True)
            )
            request = Embed(model=collection.plan.model, inputs=inputs, kind="passage")
            vectors = (await self._inference().embed(request, call)).vectors
            call = replace(call, parent=call.request_id)  # a document is one request, however long it is
            chunks += [
                Chunk(start=span.start, end=span.end, heading=heading, vector=vector)
                for span, heading, vector in zip(some, headings, vectors, strict=True)
            ]
        return chunks


def upload_name(name: str) -> str:
    """The name of a file that was sent, as a document's source: a relative path that leads nowhere else.

    Raises ``InvalidRequest``.
    """
    path = PurePosixPath(storable(name.replace("\\", "/")))
    told = path.as_posix()
    if path.is_absolute() or ".." in path.parts or told == "." or len(told) > LONGEST_NAME or not told.isprintable():
        raise InvalidRequest(
            f"{name[:100]!r} is no name for a document: a relative path of up to {LONGEST_NAME} visible characters "
            "without '..'.",
            param="file",
        )
    return told


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _moved(origin: Origin, vanished: Mapping[str, DocumentRow]) -> DocumentRow | None:
    """The document that has come here from elsewhere: the same bytes under an ending that is read alike."""
    old = vanished.get(origin.digest)
    return old if old is not None and Path(old.source).suffix == Path(origin.source).suffix else None


def _first_letter(text: str, start: int) -> int:
    """The first place from ``start`` that is not blank."""
    while text[start].isspace():
        start += 1
    return start


def _find(roots: Iterable[Path]) -> list[Path]:
    """The files to take in: those named, and in folders those of a known ending that are not hidden."""
    found: dict[Path, None] = {}
    for root in roots:
        if root.is_dir():
            for folder, folders, names in os.walk(root):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                for name in sorted(names):
                    if not name.startswith(".") and Path(name).suffix.lower() in (*KINDS, *UNREAD):
                        found[Path(os.path.normpath(folder)) / name] = None
        elif root.exists():
            found[Path(os.path.normpath(root))] = None
        else:
            raise InvalidRequest(f"There is no file or folder {root}.", param="paths")
    return list(found)


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise InvalidRequest(f"{path} is no file.", code="document_unreadable")
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error.strerror}).", code="document_unreadable") from error


def _below(source: str, roots: Iterable[Path]) -> bool:
    return any(Path(source).is_relative_to(os.path.normpath(root)) for root in roots)
