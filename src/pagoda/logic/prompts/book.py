"""The book of prompts: their rows in the records, and every change to them with its line in their history.

Versions are numbered from 1 and never change; labels move between them, each move in one transaction. Not here: what
requests ask while they run (``index``).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from pagoda.core.errors import Conflict, InvalidRequest, NotFound
from pagoda.core.runs.record import now
from pagoda.core.storage.prompt_records import (
    PromptChangeRecord,
    PromptLabelRecord,
    PromptRecord,
    PromptVersionRecord,
)
from pagoda.core.storage.store import Store
from pagoda.core.storage.text import storable
from pagoda.logic.prompts.file import read_prompt
from pagoda.logic.prompts.form import LABEL_PATTERN
from pagoda.logic.prompts.prompt import PromptVersion

T = TypeVar("T")

_CHANGED = (
    select(PromptChangeRecord.id, PromptChangeRecord.tenant, PromptChangeRecord.name)
    .where(PromptChangeRecord.id > bindparam("number"))
    .order_by(PromptChangeRecord.id)
)
"""Asked twice a second: to build it costs more than to answer it."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes a prompt, of which team, and why."""

    tenant: str = "local"
    who: str = "local"
    note: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """What can be said of a prompt without reading it: its newest version, and what its labels mean."""

    newest: int
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """A line of a prompt's history."""

    id: int
    at: datetime
    who: str
    name: str
    action: str
    label: str | None
    before: int | None
    version: int | None
    note: str


class PromptBook:
    """The prompts of all teams. ``store`` gives the records, opened."""

    def __init__(self, store: Callable[[], Awaitable[Store]]) -> None:
        self._store = store

    async def save(self, given: PromptVersion, author: Author) -> tuple[PromptVersion, bool]:
        """Keep a prompt as its next version; one that says what the newest says already is that one (``False``)."""

        async def change(session: AsyncSession) -> tuple[PromptVersion, bool]:
            await _lock(session)
            name, tenant = given.prompt.name, author.tenant
            record = await session.get(PromptRecord, (tenant, name))
            if record is None:
                record = PromptRecord(tenant=tenant, name=name, newest=0, created=now())
                session.add(record)
            else:
                newest = await session.get_one(PromptVersionRecord, (tenant, name, record.newest))
                if newest.digest == given.digest:
                    return _version(newest, given), False
            record.newest += 1
            row = PromptVersionRecord(
                tenant=tenant,
                name=name,
                version=record.newest,
                digest=given.digest,
                source=given.source,
                note=_note(author),
                who=author.who,
                created=now(),
            )
            session.add(row)
            _record(session, author, name, "saved", (None, None, record.newest))
            return _version(row, given), True

        return await self._write(change)

    async def move(self, name: str, label: str, version: int, author: Author, *, expected: int | None = None) -> Change:
        """Let a label mean a version from now on; with ``expected``, only if it means that one until now.

        Raises ``NotFound`` for the prompt or version, ``Conflict`` when the label means another one than expected.
        """
        _check_label(label)

        async def change(session: AsyncSession) -> Change:
            await _lock(session)
            if await session.get(PromptVersionRecord, (author.tenant, name, version)) is None:
                raise missing(name, version)
            return await _move(session, author, (name, label), (expected, version), "moved")

        return await self._write(change)

    async def roll_back(self, name: str, label: str, author: Author) -> Change:
        """Let a label mean again what it meant before its last move. ``Conflict`` if that was none."""

        async def change(session: AsyncSession) -> Change:
            await _lock(session)
            meant = _meant(await _history(session, author.tenant, name, label))
            if not meant:
                raise NotFound(f"{name} has no label {label[:64]!r}.", param="label")
            if len(meant) < 2 or meant[-2] is None:
                raise Conflict(
                    f"{label} of {name} has meant version {meant[-1]} alone; there is nothing to go back to."
                )
            return await _move(session, author, (name, label), (None, meant[-2]), "rolled-back")

        return await self._write(change)

    async def remove(self, name: str, label: str, author: Author) -> Change:
        """Take a label away. Raises ``NotFound``."""

        async def change(session: AsyncSession) -> Change:
            await _lock(session)
            row = await session.get(PromptLabelRecord, (author.tenant, name, label))
            if row is None:
                raise NotFound(f"{name} has no label {label[:64]!r}.", param="label")
            await session.delete(row)
            line = _record(session, author, name, "removed", (label, row.version, None))
            await session.flush()
            return _change(line)

        return await self._write(change)

    async def get(self, tenant: str, name: str, version: int) -> PromptVersion:
        """A version. Raises ``NotFound``."""
        async with (await self._store()).read() as session:
            row = await session.get(PromptVersionRecord, (tenant, name, version))
        if row is None:
            raise missing(name, version)
        return await asyncio.to_thread(_read, row)

    async def versions(self, tenant: str, name: str) -> list[PromptVersion]:
        """All versions of a prompt, newest first."""
        query = (
            select(PromptVersionRecord)
            .where(PromptVersionRecord.tenant == tenant, PromptVersionRecord.name == name)
            .order_by(PromptVersionRecord.version.desc())
        )
        async with (await self._store()).read() as session:
            rows = list(await session.scalars(query))
        return [await asyncio.to_thread(_read, row) for row in rows]

    async def history(self, tenant: str, name: str, label: str | None = None) -> list[Change]:
        """The changes of a prompt, or of one label, newest first."""
        async with (await self._store()).read() as session:
            return [_change(row) for row in reversed(await _history(session, tenant, name, label))]

    async def heads(self, only: Sequence[tuple[str, str]] | None = None) -> dict[tuple[str, str], Head]:
        """Newest version and labels by team and name: of all prompts, or ``only`` of these."""
        prompts, labels = select(PromptRecord), select(PromptLabelRecord)
        if only is not None:
            names = {name for _, name in only}
            prompts = prompts.where(PromptRecord.name.in_(names))
            labels = labels.where(PromptLabelRecord.name.in_(names))
        async with (await self._store()).read() as session:
            meant: dict[tuple[str, str], dict[str, int]] = {}
            for row in await session.scalars(labels):
                meant.setdefault((row.tenant, row.name), {})[row.label] = row.version
            return {
                (record.tenant, record.name): Head(record.newest, meant.get((record.tenant, record.name), {}))
                for record in await session.scalars(prompts)
            }

    async def last_change(self) -> int:
        """The number of the last change, 0 before the first."""
        async with (await self._store()).read() as session:
            return await session.scalar(select(func.max(PromptChangeRecord.id))) or 0

    async def changed_since(self, number: int) -> tuple[int, list[tuple[str, str]]]:
        """The number of the last change, and the team and name of every prompt that was changed after ``number``."""
        store = await self._store()
        rows = await store.ask(lambda connection: connection.execute(_CHANGED, {"number": number}).all())
        return (rows[-1][0] if rows else number), sorted({(tenant, name) for _, tenant, name in rows})

    async def _write(self, change: Callable[[AsyncSession], Awaitable[T]]) -> T:
        return await (await self._store()).write(change)


def missing(name: str, version: int | None = None, label: str | None = None) -> NotFound:
    """The error for a prompt, version or label that does not exist."""
    if label is not None:
        return NotFound(
            f"{name} has no label {label[:64]!r}; `pagoda prompts label {name} {label[:64]} VERSION` sets it.",
            param="label",
        )
    if version is not None:
        return NotFound(f"There is no version {version} of the prompt {name}.", param="version")
    return NotFound(f"There is no prompt {name[:100]!r}; `pagoda prompts list` names them all.", param="name")


async def _move(
    session: AsyncSession, author: Author, which: tuple[str, str], expected_then: tuple[int | None, int], action: str
) -> Change:
    (name, label), (expected, version) = which, expected_then
    row = await session.get(PromptLabelRecord, (author.tenant, name, label))
    before = None if row is None else row.version
    if expected is not None and before != expected:
        raise Conflict(
            f"{label} of {name} means version {before} by now, not {expected}; look again.", param="expected"
        )
    if row is None:
        session.add(PromptLabelRecord(tenant=author.tenant, name=name, label=label, version=version))
    else:
        row.version = version
    line = _record(session, author, name, action, (label, before, version))
    await session.flush()
    return _change(line)


async def _history(session: AsyncSession, tenant: str, name: str, label: str | None) -> list[PromptChangeRecord]:
    table = PromptChangeRecord
    query = select(table).where(table.tenant == tenant, table.name == name).order_by(table.id)
    return list(await session.scalars(query if label is None else query.where(table.label == label)))


def _meant(history: Sequence[PromptChangeRecord]) -> list[int | None]:
    """What a label has meant, oldest first, without what was taken back; ``None`` where it was taken away."""
    meant: list[int | None] = []
    for line in history:
        if line.action == "rolled-back":
            meant.pop()
        else:
            meant.append(line.version)
    return meant


def _record(
    session: AsyncSession, author: Author, name: str, action: str, what: tuple[str | None, int | None, int | None]
) -> PromptChangeRecord:
    label, before, version = what
    line = PromptChangeRecord(
        at=now(),
        who=author.who,
        tenant=author.tenant,
        name=name,
        action=action,
        label=label,
        before=before,
        version=version,
        note=_note(author),
    )
    session.add(line)
    return line


def _note(author: Author) -> str:
    if len(author.note) > 500:
        raise InvalidRequest("A note has 500 characters at most.", param="note")
    return str(storable(author.note))


def _check_label(label: str) -> None:
    if not re.fullmatch(LABEL_PATTERN, label):
        raise InvalidRequest(
            f"{label[:64]!r} cannot be a label; use lower-case letters, digits, dots and hyphens.", param="label"
        )


async def _lock(session: AsyncSession) -> None:
    """One process at a time changes prompts, so that changes appear in order; SQLite has one writer anyway."""
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(text("LOCK TABLE prompt_changes IN SHARE ROW EXCLUSIVE MODE"))


def _read(row: PromptVersionRecord) -> PromptVersion:
    return _version(row, read_prompt(row.source, f"{row.name}@{row.version}", tenant=row.tenant))


def _version(row: PromptVersionRecord, read: PromptVersion) -> PromptVersion:
    return replace(read, version=row.version, tenant=row.tenant, created=row.created, note=row.note)


def _change(row: PromptChangeRecord) -> Change:
    return Change(row.id, row.at, row.who, row.name, row.action, row.label, row.before, row.version, row.note)
