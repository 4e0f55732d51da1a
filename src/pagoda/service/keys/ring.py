"""The ring of keys at hand: what requests ask, answered from memory, and renewed from the book in the background.

A key is looked up once, when it is first seen, and then kept as long as it is used. Every ``refresh_seconds`` all keys
at hand are read again, so that what was revoked by another process or host is gone here too. While the database does
not answer, keys at hand go on working for ``stale_seconds``; all others are refused: nobody can say whose they are.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pagoda.core.errors import Forbidden, InvalidRequest, PagodaError, StoreError, Unauthenticated
from pagoda.core.recurring import recur
from pagoda.core.settings import Keys as Settings
from pagoda.service.keys.key import Key
from pagoda.service.keys.secret import has_form, hash_of

if TYPE_CHECKING:  # they bring the database, which a service without keys never opens
    from pagoda.core.storage.records import AuditRecord
    from pagoda.service.keys.book import Held, KeyBook

T = TypeVar("T")

logger = logging.getLogger(__name__)

ENVIRONMENT_KEY = "environment"
"""The id of the key that ``PAGODA_ADMIN_KEY`` holds; it is in no database."""

_SHORTEST_ADMIN_KEY = 16
_WARM = 1000
_MOST_AT_HAND = 20_000
_MOST_REFUSED = 10_000
_LOOKUPS = 4  # at once: guessing must not become the database's load
_MOST_WAITING = 256
_MOST_AUDIT = 1000
_CHUNK = 100  # between two chunks requests are served
_UNUSED_SECONDS = 3600.0  # longer than that a key is not kept at hand without being used
_TOUCH_SECONDS = 60.0
_WRONG = "This key is not known here; check it, or ask whoever gave it to you for a new one."


@dataclass(slots=True)
class _Entry:
    key: Key
    expires: float
    """Unix time; infinite for a key without end."""
    hashes: dict[str, float]
    """Hashes of the secrets that open it, and until when."""
    since: float
    """When it came to hand."""
    used: float = 0.0


@dataclass(slots=True)
class _Pending:
    """What is to be written when there is time."""

    audit: list[AuditRecord] = field(default_factory=list)
    touched: float = 0.0


class KeyRing:
    """``Keys`` in memory. ``book`` opens the book of keys, or gives ``None`` where there are no records at all."""

    def __init__(
        self, book: Callable[[], KeyBook | None], settings: Settings, clock: Callable[[], float] = time.time
    ) -> None:
        self._book = book
        self._settings = settings
        self._clock = clock
        self._at_hand: OrderedDict[str, _Entry] = OrderedDict()
        self._by_hash: dict[str, _Entry] = {}
        self._refused: OrderedDict[str, tuple[float, Unauthenticated]] = OrderedDict()
        self._flights: dict[str, asyncio.Task[Any]] = {}
        self._pending = _Pending()
        self._confirmed = 0.0
        self._works = True
        self._turns = asyncio.Semaphore(_LOOKUPS)
        self._epoch = 0
        self._demanded = bool(settings.admin_key)
        self._has_admin = False
        self._certain = False
        self._task: asyncio.Task[None] | None = None
        created = datetime.fromtimestamp(clock(), UTC)
        key = Key(id=ENVIRONMENT_KEY, name="PAGODA_ADMIN_KEY", scopes=frozenset({"admin"}), created=created)
        self._environment = _Entry(key, float("inf"), {}, clock())
        if settings.admin_key:
            self._keep_environment_key(settings.admin_key.reveal())

    def _keep_environment_key(self, secret: str) -> None:
        if len(secret) < _SHORTEST_ADMIN_KEY:
            raise InvalidRequest(
                f"PAGODA_ADMIN_KEY must have at least {_SHORTEST_ADMIN_KEY} characters.", param="keys.admin_key"
            )
        hash_ = hash_of(secret.encode())
        self._environment.hashes[hash_] = float("inf")
        self._by_hash[hash_] = self._environment

    @property
    def required(self) -> bool:
        """Whether a request without a key is refused: keys were demanded, an admin key exists, or nobody can tell."""
        return self._demanded or self._has_admin or not self._certain

    @property
    def certain(self) -> bool:
        """Whether it is known that keys are needed, or that they are not."""
        return self._demanded or self._certain

    @property
    def fresh(self) -> bool:
        """Whether the last reading of the book succeeded."""
        return self._works

    def demand(self) -> None:
        """Refuse requests without a key from now on, whether an admin key exists or not."""
        self._demanded = True

    async def start(self) -> None:
        """Learn whether keys are needed, and have at hand those that were used last; renew them from now on."""
        await self.refresh(warm=True)
        self._task = asyncio.create_task(recur(self._renew, self._settings.refresh_seconds))

    async def close(self) -> None:
        """Write what is left to write, and end what still waits for the database."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._works:
            await self._bounded("write", self._write_pending, timid=True)
        for task in self._flights.values():
            task.cancel()
        if self._flights:  # a frozen database does not even answer that nobody waits any more
            await asyncio.wait(self._flights.values(), timeout=self._settings.lookup_seconds)

    def known(self, secret: bytes) -> Key | None:
        """The key that a secret opens, if it is at hand; no waiting. ``None`` says nothing about the secret."""
        hash_ = hash_of(secret)
        entry = self._by_hash.get(hash_)
        if entry is None:
            return None
        now = self._clock()
        for kept, until in entry.hashes.items():
            if hmac.compare_digest(kept, hash_) and now < until:
                return self._used(entry, now)
        return None

    def get(self, key_id: str) -> Key | None:
        """The key of that id, if it is at hand and works; no waiting."""
        if key_id == ENVIRONMENT_KEY:  # by a call of another process of this home, whose environment holds it
            return self._environment.key
        entry = self._at_hand.get(key_id)
        if entry is None:
            return None
        return self._used(entry, self._clock())

    async def find(self, key_id: str) -> Key:
        """The key of that id. Raises ``Forbidden`` when it is revoked, expired or unknown, ``StoreError``."""
        if (key := self.get(key_id)) is not None:
            return key

        async def look(book: KeyBook) -> list[Held]:
            return await book.by_id([key_id])

        epoch = self._epoch
        for held in await self._bounded(f"id:{key_id}", look) or ():
            self._check(held, Forbidden)
            self._keep(held, epoch)
            return held.key
        raise Forbidden(f"There is no key {key_id[:100]!r} any more.", code="key_unknown")

    async def by_secret(self, secret: bytes) -> Key:
        """The key that a secret opens. Raises ``Unauthenticated`` when there is none, ``StoreError``."""
        if (key := self.known(secret)) is not None:
            return key
        hash_ = hash_of(secret)
        until, error = self._refused.get(hash_, (0.0, None))
        if not has_form(secret) or (error is not None and until > self._clock()):
            raise Unauthenticated(
                _WRONG if error is None else error.message, code=None if error is None else error.code
            )

        async def look(book: KeyBook) -> Held | None:
            return await book.by_hash(hash_)

        epoch = self._epoch
        held = await self._bounded(f"hash:{hash_}", look)
        try:
            if held is None:
                raise Unauthenticated(_WRONG)
            self._check_secret(held, hash_)
        except Unauthenticated as refusal:
            self._remember(hash_, refusal)
            raise
        self._keep(held, epoch)
        return self.known(secret) or held.key

    async def refresh(self, *, warm: bool = False) -> None:
        """Read the keys at hand again; a database that does not answer is noted, not raised."""
        if (before := self._flights.get("refresh")) is not None:  # it may have read what has changed since
            await asyncio.wait((before,), timeout=self._settings.lookup_seconds)
        began = self._clock()

        async def look(book: KeyBook) -> bool:
            for held in await book.recent(_WARM) if warm else ():
                self._keep(held, self._epoch)
            oldest = began - _UNUSED_SECONDS
            ids = [key_id for key_id, entry in self._at_hand.items() if max(entry.used, entry.since) > oldest]
            found: dict[str, Held] = {}
            for start in range(0, len(ids), _CHUNK):
                found |= {held.key.id: held for held in await book.by_id(ids[start : start + _CHUNK])}
            has_admin = await book.has_admin()
            self._replace(found, began)
            return has_admin

        try:
            found = await self._bounded("refresh", look)
        except PagodaError as error:
            if self._works:
                logger.error("keys cannot be renewed; those in memory go on working for a while: %s", error)
            self._works = False
            return
        if not self._works:
            logger.info("keys are renewed again")
        self._works, self._certain, self._has_admin = True, True, bool(found)
        self._confirmed = began

    def forget(self, key_id: str) -> None:
        """Ask the book before this key is believed again; what was asked already is not believed either."""
        self._epoch += 1
        self._drop(key_id)

    def _drop(self, key_id: str) -> None:
        entry = self._at_hand.pop(key_id, None)
        for hash_ in entry.hashes if entry is not None else ():
            self._by_hash.pop(hash_, None)

    def note(self, row: AuditRecord) -> None:
        """Have a line written to the audit log soon; nobody waits for it. Equal refusals are written once."""
        told = (row.who, row.action, row.outcome)
        if row.outcome != "done" and any(told == (each.who, each.action, each.outcome) for each in self._pending.audit):
            return
        if len(self._pending.audit) < _MOST_AUDIT:
            self._pending.audit.append(row)
        else:
            logger.error("the audit log is not written fast enough; lost: %s %s %s", row.who, row.action, row.outcome)

    def _used(self, entry: _Entry, now: float) -> Key | None:
        """The key of an entry, unless it has expired or was not confirmed for too long."""
        oldest = now - self._settings.stale_seconds
        is_stale = self._confirmed < oldest and entry.since < oldest and entry.key.id != ENVIRONMENT_KEY
        if is_stale or now >= entry.expires:
            return None
        entry.used = now
        return entry.key

    def _check(self, held: Held, kind: type[Forbidden | Unauthenticated]) -> None:
        if held.key.revoked is not None:
            raise kind("This key was revoked; ask whoever gave it to you for a new one.", code="key_revoked")
        if held.key.expires is not None and held.key.expires.timestamp() <= self._clock():
            raise kind("This key has expired; ask whoever gave it to you for a new one.", code="key_expired")

    def _check_secret(self, held: Held, hash_: str) -> None:
        self._check(held, Unauthenticated)
        until = dict(held.hashes).get(hash_)
        if until is not None and until.timestamp() <= self._clock():
            raise Unauthenticated("This secret was replaced by a newer one; use that.", code="key_rotated")

    def _keep(self, held: Held, epoch: int) -> None:
        if epoch != self._epoch:
            return
        before = self._at_hand.get(held.key.id)
        self._drop(held.key.id)
        if held.key.revoked is not None:
            return
        expires = float("inf") if held.key.expires is None else held.key.expires.timestamp()
        hashes = {hash_: float("inf") if until is None else until.timestamp() for hash_, until in held.hashes}
        # A key that is unchanged stays the same object, so that whoever keeps something by it may compare cheaply.
        key = before.key if before is not None and before.key == held.key else held.key
        since, used = (self._clock(), 0.0) if before is None else (before.since, before.used)
        entry = _Entry(key, expires, hashes, since, used)
        self._at_hand[key.id] = entry
        self._by_hash |= dict.fromkeys(hashes, entry)
        while len(self._at_hand) > _MOST_AT_HAND:
            self._drop(next(iter(self._at_hand)))

    def _replace(self, found: dict[str, Held], began: float) -> None:
        """Take over what was read; what was not found, not used for long, or revoked goes."""
        for key_id in list(self._at_hand):
            if key_id in found:
                self._keep(found[key_id], self._epoch)
            elif max(self._at_hand[key_id].used, self._at_hand[key_id].since) < began:
                self._drop(key_id)

    def _remember(self, hash_: str, refusal: Unauthenticated) -> None:
        self._refused[hash_] = (self._clock() + self._settings.refresh_seconds, refusal)
        while len(self._refused) > _MOST_REFUSED:
            self._refused.popitem(last=False)

    async def _renew(self) -> None:
        await self.refresh()
        if self._works:
            await self._bounded("write", self._write_pending, timid=True)

    async def _write_pending(self, book: KeyBook) -> None:
        rows, self._pending.audit = self._pending.audit, []
        if rows:
            await book.enter_audit(rows)
        now, since = self._clock(), self._pending.touched
        if now - since >= _TOUCH_SECONDS:
            self._pending.touched = now
            used = [(entry.key.id, entry.used) for entry in self._at_hand.values() if entry.used > since]
            if used:
                await book.touch([(key_id, datetime.fromtimestamp(at, UTC)) for key_id, at in used])

    async def _bounded(
        self, name: str, work: Callable[[KeyBook], Coroutine[Any, Any, T]], *, timid: bool = False
    ) -> T | None:
        """What the book answers, within ``lookup_seconds``; equal questions are asked once. ``None`` without records.

        A question that takes longer goes on by itself, since one that is cancelled waits for the database to say so.
        """
        flight = self._flights.get(name)
        if flight is None:
            book = self._book()
            if book is None:
                return None
            if len(self._flights) >= _MOST_WAITING:
                raise _unreachable()
            flight = self._flights[name] = asyncio.create_task(self._in_turn(work, book), name=f"keys-{name[:20]}")
            flight.add_done_callback(lambda task: self._landed(name, task))
        await asyncio.wait((flight,), timeout=self._settings.lookup_seconds)
        if not flight.done():
            if timid:
                return None
            raise _unreachable()
        try:
            result: T = flight.result()
        except StoreError as error:
            if timid:
                logger.error("audit log and times of use could not be written: %s", error)
                return None
            raise _unreachable() from error
        return result

    async def _in_turn(self, work: Callable[[KeyBook], Coroutine[Any, Any, T]], book: KeyBook) -> T:
        async with self._turns:
            return await work(book)

    def _landed(self, name: str, task: asyncio.Task[Any]) -> None:
        self._flights.pop(name, None)
        if not task.cancelled():
            task.exception()  # whoever waited has told it; nobody did if it came too late


def _unreachable() -> StoreError:
    return StoreError(
        "Keys cannot be looked up now, since the database does not answer; try again.",
        code="keys_unavailable",
        retryable=True,
    )
