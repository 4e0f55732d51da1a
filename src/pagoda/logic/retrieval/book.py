"""The book of collections: their rows in the records, and every change to them.

The document table is the truth. A document and its chunks come and go in one transaction, so that whatever is built
from them agrees with it after a crash. Not here: searching (``index``), where documents come from (``ingestion``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from collections.abc import Collection as Names
from dataclasses import dataclass
from pathlib import PurePath

from sqlalchemy import ColumnElement, Row, Select, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from pagoda.core.errors import Conflict, NotFound
from pagoda.core.runs.record import now
from pagoda.core.storage.retrieval_records import ChunkRecord, CollectionRecord, DocumentRecord
from pagoda.core.storage.store import Store
from pagoda.core.types import new_id
from pagoda.logic.retrieval.collection import (
    Chunk,
    Collection,
    DocumentRow,
    HeldPassage,
    Listed,
    Passage,
    Plan,
    Tags,
    check_name,
    missing,
    plan_from,
)
from pagoda.logic.retrieval.document import Document

_IN_ONE_QUERY = 500  # databases bound the parameters of a query


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The bytes that a document was read from."""

    source: str
    digest: str
    size: int
    tags: Tags | None = None
    """``None``: as they were."""


class CollectionBook:
    """The collections of all teams. ``store`` gives the records, opened."""

    def __init__(self, store: Callable[[], Awaitable[Store]]) -> None:
        self._store = store

    async def ensure(self, tenant: str, name: str, plan: Plan | None = None) -> Collection:
        """The collection of that name, made if there is none. ``Conflict`` if there is one with another plan."""
        check_name(name)
        wanted = plan or Plan()
        wanted.splitter()

        async def change(session: AsyncSession) -> Collection:
            row = await session.get(CollectionRecord, (tenant, name))
            if row is None:
                row = CollectionRecord(
                    tenant=tenant,
                    name=name,
                    id=new_id("col"),
                    model=wanted.model,
                    settings={"limit": wanted.limit, "overlap": wanted.overlap},
                    revision=0,
                    created=now(),
                )
                session.add(row)
            found = _collection(row)
            if plan is not None and plan != found.plan:
                raise Conflict(
                    f"The collection {name} is kept with {found.plan.model} and chunks of {found.plan.limit} "
                    f"characters ({found.plan.overlap} of overlap); delete it first, or choose another name."
                )
            return found

        return await (await self._store()).write(change)

    async def get(self, tenant: str, name: str) -> Collection:
        """A collection. Raises ``NotFound``."""
        async with (await self._store()).read() as session:
            row = await session.get(CollectionRecord, (tenant, name))
        if row is None:
            raise missing(name)
        return _collection(row)

    async def collections(self, tenant: str) -> list[Collection]:
        """All of a team's, by name."""
        query = select(CollectionRecord).where(CollectionRecord.tenant == tenant).order_by(CollectionRecord.name)
        async with (await self._store()).read() as session:
            return [_collection(row) for row in await session.scalars(query)]

    async def documents(self, collection: Collection, key_id: str | None = None) -> list[DocumentRow]:
        """The documents of a collection that a key may see, by source."""
        return [row for row in await self._rows(collection) if row.tags.visible_to(key_id)]

    async def document(self, collection: Collection, document: str, key_id: str | None = None) -> DocumentRow:
        """A document by its id. Raises ``NotFound``, also for one that the key may not see."""
        for row in await self._rows(collection, DocumentRecord.id == document):
            if row.tags.visible_to(key_id):
                return row
        raise NotFound(
            f"{collection.name} has no document {document[:100]!r}; it may have been deleted, or taken in again.",
            param="document",
        )

    async def of_source(self, collection: Collection, source: str) -> DocumentRow | None:
        """The document that came from there, whoever may see it."""
        return next(iter(await self._rows(collection, DocumentRecord.source == source)), None)

    async def _rows(self, collection: Collection, *which: ColumnElement[bool]) -> list[DocumentRow]:
        table = DocumentRecord
        chunks = select(func.count()).where(ChunkRecord.document_id == table.id).scalar_subquery()
        columns = (table.id, table.source, table.digest, table.size, table.kind, table.encoding, table.title)
        query = select(*columns, chunks, table.labels, table.keys).where(table.collection_id == collection.id, *which)
        async with (await self._store()).read() as session:
            rows = (await session.execute(query.order_by(table.source))).all()
        words = ("id", "source", "digest", "size", "kind", "encoding", "title", "chunks")
        return [DocumentRow(**dict(zip(words, row[:-2], strict=True)), tags=_tags(*row[-2:])) for row in rows]

    async def text(self, collection: Collection, document: str, key_id: str | None = None) -> str:
        """The text of a document by its id, into which places point. Raises ``NotFound``."""
        async with (await self._store()).read() as session:
            row = await session.get(DocumentRecord, document)
        if row is None or row.collection_id != collection.id or not _tags(row.labels, row.keys).visible_to(key_id):
            raise NotFound(f"{collection.name} has no document {document[:100]!r}.", param="document")
        return row.text

    async def put(self, collection: Collection, origin: Origin, document: Document, chunks: Sequence[Chunk]) -> str:
        """Keep a document in place of the one from the same source, and its tags unless others are given; gives its id.

        Raises ``NotFound`` if the collection has been deleted meanwhile.
        """

        async def change(session: AsyncSession) -> str:
            await _revise(session, collection)
            before = await session.scalar(_of_source(collection, origin.source))
            tags = origin.tags or (Tags() if before is None else _tags(before.labels, before.keys))
            await _remove(session, collection, [origin.source])
            row = DocumentRecord(
                id=new_id("doc"),
                collection_id=collection.id,
                source=origin.source,
                digest=origin.digest,
                size=origin.size,
                kind=document.kind,
                encoding=document.encoding,
                title=document.title,
                text=document.text,
                labels=dict(tags.labels),
                keys=None if tags.keys is None else list(tags.keys),
                created=now(),
            )
            session.add(row)
            session.add_all(
                ChunkRecord(
                    document_id=row.id, start=each.start, end=each.end, heading=each.heading, vector=each.vector
                )
                for each in chunks
            )
            return row.id

        return await (await self._store()).write(change)

    async def tag(self, collection: Collection, source: str, tags: Tags) -> None:
        """Say something else of a document; its chunks stay. Raises ``NotFound``."""

        async def change(session: AsyncSession) -> None:
            row = await _found(session, collection, source)
            row.labels, row.keys = dict(tags.labels), None if tags.keys is None else list(tags.keys)

        await (await self._store()).write(change)

    async def rename(self, collection: Collection, source: str, new: str) -> None:
        """Let a document come from elsewhere; its chunks stay. Raises ``NotFound``."""

        async def change(session: AsyncSession) -> None:
            row = await _found(session, collection, source)
            if row.title == PurePath(source).name:
                row.title = PurePath(new).name
            row.source = new

        await (await self._store()).write(change)

    async def remove(self, collection: Collection, sources: Names[str]) -> int:
        """Let documents leave with their chunks; gives how many there were."""

        async def change(session: AsyncSession) -> int:
            await _revise(session, collection)
            return await _remove(session, collection, sorted(sources))

        return await (await self._store()).write(change) if sources else 0

    async def delete(self, tenant: str, name: str) -> int:
        """Delete a collection with all it holds; gives how many documents. Raises ``NotFound``."""

        async def change(session: AsyncSession) -> int:
            row = await session.get(CollectionRecord, (tenant, name))
            if row is None:
                raise missing(name)
            held = select(DocumentRecord.id).where(DocumentRecord.collection_id == row.id)
            count = await session.scalar(select(func.count()).select_from(held.subquery())) or 0
            await session.execute(delete(ChunkRecord).where(ChunkRecord.document_id.in_(held)))
            await session.execute(delete(DocumentRecord).where(DocumentRecord.collection_id == row.id))
            await session.delete(row)
            return count

        return await (await self._store()).write(change)

    async def passages(self, tenant: str, name: str) -> tuple[Collection, list[HeldPassage]]:
        """A collection as it is at one moment, with all its passages, by source. Raises ``NotFound``."""
        collection, listed, held = await self.changes(tenant, name, {})
        return collection, [passage for document in listed for passage in held[document]]

    async def changes(
        self, tenant: str, name: str, known: Mapping[str, Listed]
    ) -> tuple[Collection, dict[str, Listed], dict[str, list[HeldPassage]]]:
        """A collection as it is at one moment: its documents by id, in the order of their sources, and the passages of
        those that are not ``known`` as they are. Raises ``NotFound``.
        """
        table = DocumentRecord
        async with (await self._store()).read() as session:
            row = await session.get(CollectionRecord, (tenant, name))
            if row is None:
                raise missing(name)
            query = select(table.id, table.source, table.title, table.kind, table.labels, table.keys)
            rows = (await session.execute(query.where(table.collection_id == row.id))).all()
            listed: dict[str, Listed] = {each[0]: each[1:] for each in sorted(rows, key=lambda each: each[1])}
            new = [document for document, told in listed.items() if known.get(document) != told]
            documents, chunks = await _read(session, row.id, new if known else None)
        held = await asyncio.to_thread(_passages, documents, chunks)
        # What another process took away between two of these queries is gone; the revision tells the next one the rest.
        listed = {key: told for key, told in listed.items() if key in held or known.get(key) == told}
        return _collection(row), listed, held


async def _read(
    session: AsyncSession, collection: str, wanted: Sequence[str] | None
) -> tuple[list[DocumentRecord], list[Row[str, int, int, str, bytes]]]:
    """Documents of a collection with their chunks, those ``wanted`` or (``None``) all."""
    table = ChunkRecord
    of_chunks = select(table.document_id, table.start, table.end, table.heading, table.vector)
    of_all = of_chunks.join(DocumentRecord, DocumentRecord.id == table.document_id)
    queries = [
        (
            select(DocumentRecord).where(DocumentRecord.collection_id == collection),
            of_all.where(DocumentRecord.collection_id == collection),
        )
    ]
    if wanted is not None:
        some = (wanted[begin : begin + _IN_ONE_QUERY] for begin in range(0, len(wanted), _IN_ONE_QUERY))
        queries = [
            (select(DocumentRecord).where(DocumentRecord.id.in_(ids)), of_chunks.where(table.document_id.in_(ids)))
            for ids in some
        ]
    documents: list[DocumentRecord] = []
    chunks: list[Row[str, int, int, str, bytes]] = []
    for documents_query, chunks_query in queries:
        documents += await session.scalars(documents_query)
        chunks += (await session.execute(chunks_query)).all()
    return documents, chunks


async def _revise(session: AsyncSession, collection: Collection) -> None:
    row = await session.get(CollectionRecord, (collection.tenant, collection.name), with_for_update=True)
    if row is None or row.id != collection.id:
        raise missing(collection.name)
    row.revision += 1


def _of_source(collection: Collection, source: str) -> Select[DocumentRecord]:
    return select(DocumentRecord).where(DocumentRecord.collection_id == collection.id, DocumentRecord.source == source)


async def _found(session: AsyncSession, collection: Collection, source: str) -> DocumentRecord:
    """The document, in a collection whose revision counts up."""
    await _revise(session, collection)
    row = await session.scalar(_of_source(collection, source))
    if row is None:
        raise NotFound(f"{collection.name} has no document {source[:200]!r}.", param="source")
    return row


async def _remove(session: AsyncSession, collection: Collection, sources: Sequence[str]) -> int:
    count = 0
    for begin in range(0, len(sources), _IN_ONE_QUERY):
        query = select(DocumentRecord.id).where(
            DocumentRecord.collection_id == collection.id,
            DocumentRecord.source.in_(sources[begin : begin + _IN_ONE_QUERY]),
        )
        ids = list(await session.scalars(query))
        await session.execute(delete(ChunkRecord).where(ChunkRecord.document_id.in_(ids)))
        await session.execute(delete(DocumentRecord).where(DocumentRecord.id.in_(ids)))
        count += len(ids)
    return count


def _collection(row: CollectionRecord) -> Collection:
    return Collection(
        tenant=row.tenant,
        name=row.name,
        id=row.id,
        plan=plan_from(row.model, row.settings),
        revision=row.revision,
        created=row.created,
    )


def _passages(
    documents: list[DocumentRecord], chunks: Sequence[Row[str, int, int, str, bytes]]
) -> dict[str, list[HeldPassage]]:
    """By document, in the order of its text."""
    held: dict[str, list[Chunk]] = {each.id: [] for each in documents}
    for document, start, end, heading, vector in chunks:
        if document not in held:  # put in since the documents were read
            continue
        held[document].append(Chunk(start=start, end=end, heading=heading, vector=vector))
    return {each.id: list(_held(each, held[each.id])) for each in documents}


def _held(document: DocumentRecord, chunks: Sequence[Chunk]) -> Iterator[HeldPassage]:
    """The passages of a document, in the order of its text."""
    tags = _tags(document.labels, document.keys)
    for chunk in sorted(chunks, key=lambda each: each.start):
        passage = Passage(
            document=document.id,
            source=document.source,
            title=document.title,
            heading=chunk.heading,
            start=chunk.start,
            end=chunk.end,
            text=document.text[chunk.start : chunk.end],
            labels=tags.labels,
        )
        yield HeldPassage(passage=passage, vector=chunk.vector, tags=tags, kind=document.kind)


def _tags(labels: dict[str, str], keys: list[str] | None) -> Tags:
    return Tags(labels=labels, keys=None if keys is None else tuple(keys))
