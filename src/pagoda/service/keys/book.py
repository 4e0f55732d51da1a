"""The book of keys: their rows in the records, and every change to them with its line in the audit log.

Not here: what is asked of keys while requests run (``ring``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, delete, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from pagoda.core.errors import Conflict, NotFound
from pagoda.core.runs.record import now
from pagoda.core.storage.records import AuditRecord, KeyRecord, TeamRecord
from pagoda.core.storage.store import Store
from pagoda.core.types import new_id
from pagoda.service.keys.draft import Draft, check_limits, check_team, scopes_from
from pagoda.service.keys.key import Key, Limits
from pagoda.service.keys.secret import hash_of, new_secret, shown_of

T = TypeVar("T")

_ADMIN = KeyRecord.scopes.contains("admin") & KeyRecord.revoked.is_(None)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something, for the audit log."""

    who: str = "local"
    address: str = ""


LOCAL = Actor()
"""This machine's own user, at its command line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A key as the book holds it."""

    key: Key
    shown: str
    last_used: datetime | None
    hashes: tuple[tuple[str, datetime | None], ...]
    """Of the secrets that open it, each with the time at which it stops to."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A key with its secret, which is told once."""

    held: Held
    secret: str


class KeyBook:
    """The keys of this home or of this database. ``store`` gives the records, opened."""

    def __init__(self, store: Callable[[], Awaitable[Store]]) -> None:
        self._store = store

    async def create(self, draft: Draft, actor: Actor) -> Issued:
        """Enter a new key. Raises ``Conflict`` when a working key has its name."""

        async def change(session: AsyncSession) -> Issued:
            issued = await _enter(session, draft)
            _note(session, actor, "keys.create", issued.held.key.id)
            return issued

        return await self._write(change)

    async def ensure_admin(self) -> Issued | None:
        """Enter an admin key if there is none, also when several processes ask at once."""

        async def change(session: AsyncSession) -> Issued | None:
            await _lock(session)
            if await session.scalar(select(KeyRecord.id).where(_ADMIN).limit(1)) is not None:
                return None
            return await _enter_admin(session, LOCAL, "keys.create")

        return await self._write(change)

    async def reset_admin(self, actor: Actor) -> Issued:
        """Revoke all admin keys and enter a new one."""

        async def change(session: AsyncSession) -> Issued:
            await _lock(session)
            await session.execute(update(KeyRecord).where(_ADMIN).values(revoked=now()))
            return await _enter_admin(session, actor, "keys.reset-admin")

        return await self._write(change)

    async def find(self, *, revoked: bool = False) -> list[Held]:
        """All keys, newest first; those that were revoked only if wanted."""
        query = select(KeyRecord, TeamRecord.limits).order_by(KeyRecord.created.desc(), KeyRecord.id)
        return await self._read(query if revoked else query.where(KeyRecord.revoked.is_(None)))

    async def get(self, reference: str) -> Held:
        """A key by its id, or by its name if one working key has it. Raises ``NotFound``."""
        async with (await self._store()).read() as session:
            record = await _record(session, reference)
            return _held(record, await session.scalar(_limits_of(record.team)))

    async def by_hash(self, hash_: str) -> Held | None:
        """The key that a secret belongs to, whether it still opens anything or not."""
        both = or_(KeyRecord.secret_hash == hash_, KeyRecord.previous_hash == hash_)
        return next(iter(await self._read(_with_teams().where(both))), None)

    async def by_id(self, ids: Sequence[str]) -> list[Held]:
        """Those of the keys that there are."""
        return await self._read(_with_teams().where(KeyRecord.id.in_(ids)))

    async def recent(self, limit: int) -> list[Held]:
        """Working keys, those first that were used, or else created, last."""
        working = KeyRecord.revoked.is_(None)
        newest = func.coalesce(KeyRecord.last_used, KeyRecord.created).desc()
        return await self._read(_with_teams().where(working).order_by(newest).limit(limit))

    async def has_admin(self) -> bool:
        """Whether there is an admin key that was not revoked; one that expired counts, so that a door stays shut."""
        async with (await self._store()).read() as session:
            return await session.scalar(select(KeyRecord.id).where(_ADMIN).limit(1)) is not None

    async def revoke(self, reference: str, actor: Actor, *, keep_admin: bool) -> Held:
        """End a key for good. With ``keep_admin`` the last admin key is refused (``Conflict``)."""

        async def change(session: AsyncSession) -> Held:
            record = await _record(session, reference)
            if keep_admin and "admin" in record.scopes.split():
                await _lock(session)
                others = select(KeyRecord.id).where(_ADMIN, KeyRecord.id != record.id).limit(1)
                if await session.scalar(others) is None:
                    raise Conflict("This is the last admin key; create another one before you revoke it.")
            record.revoked = record.revoked or now()
            _note(session, actor, "keys.revoke", record.id)
            return _held(record, await session.scalar(_limits_of(record.team)))

        return await self._write(change)

    async def rotate(self, reference: str, grace_seconds: float, actor: Actor) -> Issued:
        """Give a key a new secret; the old one works for the time of grace. Raises ``Conflict`` if it was revoked."""

        async def change(session: AsyncSession) -> Issued:
            record = await _record(session, reference)
            if record.revoked is not None:
                raise Conflict(f"The key {record.id} was revoked; create a new one.")
            secret = new_secret()
            record.previous_hash, record.previous_until = None, None
            if grace_seconds > 0:
                record.previous_hash = record.secret_hash
                record.previous_until = now() + timedelta(seconds=grace_seconds)
            record.secret_hash, record.shown = hash_of(secret.encode()), shown_of(secret)
            _note(session, actor, "keys.rotate", record.id)
            return Issued(_held(record, await session.scalar(_limits_of(record.team))), secret)

        return await self._write(change)

    async def limit_team(self, name: str, limits: Limits, actor: Actor) -> Limits:
        """Set the limits that all keys of a team share."""
        kept = _limits_json(check_limits(limits))
        check_team(name)

        async def change(session: AsyncSession) -> None:
            await session.execute(delete(TeamRecord).where(TeamRecord.name == name))
            if kept:
                session.add(TeamRecord(name=name, limits=kept))
            _note(session, actor, "keys.team", name)

        await self._write(change)
        return limits

    async def team(self, name: str) -> Limits:
        """The limits of a team."""
        async with (await self._store()).read() as session:
            return _limits(await session.scalar(_limits_of(check_team(name))))

    async def touch(self, used: Sequence[tuple[str, datetime]]) -> None:
        """Note when keys were last used."""

        async def change(session: AsyncSession) -> None:
            for key_id, at in used:
                older = or_(KeyRecord.last_used.is_(None), KeyRecord.last_used < at)
                await session.execute(update(KeyRecord).where(KeyRecord.id == key_id, older).values(last_used=at))

        await self._write(change)

    async def enter_audit(self, rows: Sequence[AuditRecord]) -> None:
        """Add lines to the audit log."""

        async def change(session: AsyncSession) -> None:
            session.add_all(rows)

        await self._write(change)

    async def audit(self, *, limit: int, before: int | None = None) -> list[AuditRecord]:
        """The newest lines of the audit log, from the one before ``before`` on."""
        query = select(AuditRecord).order_by(AuditRecord.id.desc()).limit(limit)
        async with (await self._store()).read() as session:
            return list(await session.scalars(query if before is None else query.where(AuditRecord.id < before)))

    async def _write(self, change: Callable[[AsyncSession], Awaitable[T]]) -> T:
        return await (await self._store()).write(change)

    async def _read(self, query: Select[Any]) -> list[Held]:
        joined = query.outerjoin(TeamRecord, TeamRecord.name == KeyRecord.team)
        async with (await self._store()).read() as session:
            return [_held(record, limits) for record, limits in await session.execute(joined)]


def audit_row(actor: Actor, action: str, subject: str, outcome: str) -> AuditRecord:
    """A line of the audit log, as of now."""
    return AuditRecord(
        at=now(), who=actor.who, address=actor.address[:64], action=action[:100], subject=subject[:300], outcome=outcome
    )


def _note(session: AsyncSession, actor: Actor, action: str, subject: str) -> None:
    session.add(audit_row(actor, action, subject, "done"))


async def _lock(session: AsyncSession) -> None:
    """One process at a time counts admin keys; SQLite has one writer anyway."""
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(text("LOCK TABLE keys IN SHARE ROW EXCLUSIVE MODE"))


async def _enter_admin(session: AsyncSession, actor: Actor, action: str) -> Issued:
    name, number = "admin", 1
    while await session.scalar(_working(name)) is not None:
        name, number = f"admin-{number + 1}", number + 1
    issued = await _enter(session, Draft(name=name, scopes=frozenset({"admin"})))
    _note(session, actor, action, issued.held.key.id)
    return issued


async def _enter(session: AsyncSession, draft: Draft) -> Issued:
    if await session.scalar(_working(draft.name)) is not None:
        raise Conflict(f"There is a key {draft.name!r} already; revoke it or choose another name.", param="name")
    secret = new_secret()
    record = KeyRecord(
        id=new_id("key"),
        name=draft.name,
        team=draft.team,
        shown=shown_of(secret),
        secret_hash=hash_of(secret.encode()),
        scopes=" ".join(sorted(draft.scopes)),
        models=None if draft.models is None else {"ids": list(draft.models)},
        priority=draft.priority,
        limits=_limits_json(draft.limits),
        created=now(),
        expires=draft.expires,
    )
    session.add(record)
    await session.flush()
    return Issued(_held(record, await session.scalar(_limits_of(draft.team))), secret)


def _working(name: str) -> Select[str]:
    return select(KeyRecord.id).where(KeyRecord.name == name, KeyRecord.revoked.is_(None))


async def _record(session: AsyncSession, reference: str) -> KeyRecord:
    known: ColumnElement[bool] = or_(
        KeyRecord.id == reference, (KeyRecord.name == reference) & KeyRecord.revoked.is_(None)
    )
    record = await session.scalar(select(KeyRecord).where(known).limit(1))
    if record is None:
        raise NotFound(f"There is no key {reference[:100]!r}; `pagoda keys list` names them all.", param="key")
    return record


def _with_teams() -> Select[Any]:
    return select(KeyRecord, TeamRecord.limits)


def _limits_of(team: str) -> Select[tuple[dict[str, Any]]]:
    return select(TeamRecord.limits).where(TeamRecord.name == team)


def _held(record: KeyRecord, team_limits: dict[str, Any] | None) -> Held:
    key = Key(
        id=record.id,
        name=record.name,
        team=record.team,
        scopes=scopes_from(record.scopes.split()),
        models=None if record.models is None else tuple(record.models["ids"]),
        priority=record.priority,
        limits=_limits(record.limits),
        team_limits=_limits(team_limits),
        created=record.created,
        expires=record.expires,
        revoked=record.revoked,
    )
    hashes: list[tuple[str, datetime | None]] = [(record.secret_hash, None)]
    if record.previous_hash is not None:
        hashes.append((record.previous_hash, record.previous_until))
    return Held(key=key, shown=record.shown, last_used=record.last_used, hashes=tuple(hashes))


def _limits(kept: dict[str, Any] | None) -> Limits:
    return Limits(**(kept or {}))


def _limits_json(limits: Limits) -> dict[str, Any]:
    default = asdict(Limits())
    return {name: value for name, value in asdict(limits).items() if value != default[name]}
