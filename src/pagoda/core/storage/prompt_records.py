"""The tables of prompts: their versions, what their labels mean, and every change."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from pagoda.core.storage.records import Record


class PromptRecord(Record):
    """A prompt of a team."""

    __tablename__ = "prompts"

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    newest: Mapped[int]
    """Its last version."""
    created: Mapped[datetime]


class PromptVersionRecord(Record):
    """What a prompt says in one version; never changed after it was written."""

    __tablename__ = "prompt_versions"

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    source: Mapped[str] = mapped_column(Text)
    """YAML, as it was written."""
    note: Mapped[str] = mapped_column(String(500))
    who: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime]


class PromptLabelRecord(Record):
    """The version that a label means now."""

    __tablename__ = "prompt_labels"

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    label: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int]


class PromptChangeRecord(Record):
    """A version that was written, or a label that was moved; processes follow these rows by their numbers."""

    __tablename__ = "prompt_changes"
    __table_args__ = (Index(None, "tenant", "name", "label", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    who: Mapped[str] = mapped_column(String(64))
    """The id of a key, or ``local``: this machine's own user."""
    tenant: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(100))
    action: Mapped[str] = mapped_column(String(16))
    """``saved``, ``moved``, ``rolled-back`` or ``removed``."""
    label: Mapped[str | None] = mapped_column(String(64))
    before: Mapped[int | None]
    version: Mapped[int | None]
    note: Mapped[str] = mapped_column(String(500))
