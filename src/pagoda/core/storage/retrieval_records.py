"""The tables of retrieval: collections, their documents, and the chunks of these. The documents are the truth."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from pagoda.core.storage.records import JsonValue, Record


class CollectionRecord(Record):
    """A collection of a team."""

    __tablename__ = "collections"

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    id: Mapped[str] = mapped_column(String(64))
    """Never used again, unlike its name."""
    model: Mapped[str] = mapped_column(String(500))
    """That embeds its chunks, and the questions to it."""
    settings: Mapped[dict[str, Any]]
    revision: Mapped[int]
    """Counts the changes; whoever holds a copy compares it."""
    created: Mapped[datetime]


class DocumentRecord(Record):
    """A document as it was read; a new version of it is a new row."""

    __tablename__ = "documents"
    __table_args__ = (Index(None, "collection_id", "source", unique=True),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    collection_id: Mapped[str] = mapped_column(String(64))
    source: Mapped[str] = mapped_column(String(4000))
    """Where it came from, such as a path."""
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the bytes that were read."""
    size: Mapped[int]
    """Of these, in bytes."""
    kind: Mapped[str] = mapped_column(String(16))
    encoding: Mapped[str] = mapped_column(String(16))
    title: Mapped[str] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)
    labels: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    """What searches can be narrowed by: texts by name."""
    keys: Mapped[list[str] | None] = mapped_column(JsonValue)
    """Ids of the team's keys that may see it; null: all."""
    created: Mapped[datetime]


class ChunkRecord(Record):
    """A piece of a document: ``text[start:end]``, in characters."""

    __tablename__ = "chunks"

    document_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    start: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    end: Mapped[int]
    heading: Mapped[str] = mapped_column(Text)
    vector: Mapped[bytes] = mapped_column(LargeBinary)
    """Little-endian float32 of unit length."""
