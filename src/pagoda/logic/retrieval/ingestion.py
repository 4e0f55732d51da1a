"""Files taken into a collection: found, hashed, and only what changed is read, split and embedded again.

Each document is one transaction, so that work that was interrupted goes on where it was when it is asked for again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pagoda.core.errors import ContextTooLong, InvalidRequest, NotFound, Rejected, UserError
from pagoda.core.ports import Inference, Progress
from pagoda.core.storage.text import storable
from pagoda.core.types import Call, Embed
from pagoda.logic.retrieval.book import CollectionBook, Origin
from pagoda.logic.retrieval.collection import Chunk, Collection
from pagoda.logic.retrieval.document import Document, heading_at
from pagoda.logic.retrieval.reading import KINDS, MOST_BYTES, UNREAD, read_document

_TOGETHER = 32  # texts in one request for embeddings
_HEADING_CHARACTERS = 100  # of a chunk's headings, that are embedded with it


@dataclass(slots=True)
class Report:
    """What became of the files."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Each with what is wrong, in a sentence."""
    unchanged: int = 0
    chunks: int = 0
    """That were embedded."""

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "added": self.added,
            "changed": self.changed,
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

    async def take(self, collection: Collection, roots: Sequence[Path], call: Call, progress: Progress) -> Report:
        """Bring a collection up to what lies under ``roots`` (files and folders).

        What has vanished below them leaves; what cannot be read is named in the report, leaves too, and the rest goes
        on. Raises ``InvalidRequest`` for a root that does not exist, ``NotFound`` for a collection that was deleted,
        and what the door raises.
        """
        roots = [root.absolute() for root in roots]
        paths = await asyncio.to_thread(_find, roots)
        kept = {row.source: row.digest for row in await self._book.documents(collection)}
        report = Report()
        for done, path in enumerate(paths):
            progress("ingest", done, len(paths))
            source = storable(str(path))
            try:
                await self._take_file(collection, path, kept.get(source), call, report)
            except NotFound:  # the collection has been deleted meanwhile, or there is no such model
                raise
            except (UserError, ContextTooLong, Rejected) as error:
                report.failed.append((source, error.message))
        progress("ingest", len(paths), len(paths))
        failed = {source for source, _ in report.failed}
        there = {storable(str(path)) for path in paths} - failed
        gone = [source for source in kept if source not in there and (source in failed or _below(source, roots))]
        await self._book.remove(collection, gone)
        report.removed = sorted(gone)
        return report

    async def _take_file(
        self, collection: Collection, path: Path, digest: str | None, call: Call, report: Report
    ) -> None:
        data = await asyncio.to_thread(_read, path)
        origin = Origin(source=storable(str(path)), digest=hashlib.sha256(data).hexdigest(), size=len(data))
        if origin.digest == digest:
            report.unchanged += 1
            return
        document = await asyncio.to_thread(read_document, str(path), data)
        chunks = await self._chunks(collection, document, call)
        await self._book.put(collection, origin, document, chunks)
        (report.added if digest is None else report.changed).append(origin.source)
        report.chunks += len(chunks)

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
            chunks += [
                Chunk(start=span.start, end=span.end, heading=heading, vector=vector)
                for span, heading, vector in zip(some, headings, vectors, strict=True)
            ]
        return chunks


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
