"""The ring: keys from memory, renewed in the background, and what it does without its database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pagoda.core.errors import Forbidden, StoreError, Unauthenticated
from pagoda.core.setting_values import Secret
from pagoda.core.settings import Keys, Settings
from pagoda.core.storage.store import Store, open_store
from pagoda.service.keys.book import LOCAL, Held, Issued, KeyBook, audit_row
from pagoda.service.keys.draft import Draft
from pagoda.service.keys.key import Limits
from pagoda.service.keys.ring import ENVIRONMENT_KEY, KeyRing

SETTINGS = Keys(refresh_seconds=3600, lookup_seconds=20, stale_seconds=60)


class Book(KeyBook):
    """A book that counts its questions and can be made to fail or to hang."""

    def __init__(self, store: Callable[[], Awaitable[Store]]) -> None:
        super().__init__(store)
        self.asked: list[str] = []
        self.fault: Callable[[], Awaitable[None]] | None = None

    async def by_hash(self, hash_: str) -> Held | None:
        await self._meet("by_hash")
        return await super().by_hash(hash_)

    async def by_id(self, ids: Any) -> list[Held]:
        await self._meet("by_id")
        return await super().by_id(ids)

    async def has_admin(self) -> bool:
        await self._meet("has_admin")
        return await super().has_admin()

    async def _meet(self, question: str) -> None:
        self.asked.append(question)
        if self.fault is not None:
            await self.fault()


class Clock:
    """Unix time that moves when told."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).timestamp()

    def __call__(self) -> float:
        return self.now


async def broken() -> None:
    raise StoreError("The database is gone.", retryable=True)


async def frozen() -> None:
    await asyncio.Event().wait()


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[Book]:
    async with open_store(Settings(home=tmp_path)) as store:

        async def opened() -> Store:
            return store

        yield Book(opened)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ring(book: Book, clock: Clock) -> AsyncIterator[KeyRing]:
    made = KeyRing(lambda: book, SETTINGS, clock)
    await made.start()
    yield made
    await made.close()


async def issue(book: Book, **fields: Any) -> Issued:
    return await book.create(Draft(**{"name": "one", **fields}), LOCAL)


def is_fresh(ring: KeyRing) -> bool:
    return ring.fresh


def is_required(ring: KeyRing) -> bool:
    return ring.required


def told(issued: Issued) -> bytes:
    return issued.secret.encode()


async def test_a_key_is_looked_up_once_and_then_in_memory(ring: KeyRing, book: Book) -> None:
    issued = await issue(book, team="blue", priority=5, limits=Limits(requests_per_minute=7))
    assert ring.known(told(issued)) is None
    found = await asyncio.gather(*(ring.by_secret(told(issued)) for _ in range(20)))
    assert book.asked.count("by_hash") == 1, "equal questions are asked once"
    assert {key.id for key in found} == {issued.held.key.id}
    assert found[0] == issued.held.key
    assert ring.known(told(issued)) is ring.get(issued.held.key.id) is found[0]
    assert (await ring.find(issued.held.key.id)).limits.requests_per_minute == 7
    assert book.asked.count("by_id") == 0


async def test_keys_used_before_are_at_hand_after_a_restart(book: Book, clock: Clock) -> None:
    issued = await issue(book)
    ring = KeyRing(lambda: book, SETTINGS, clock)
    await ring.start()
    assert ring.known(told(issued)) is not None
    await ring.close()


async def test_a_wrong_secret_is_asked_for_once(ring: KeyRing, book: Book, clock: Clock) -> None:
    wrong = b"pk-" + b"x" * 43
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            await ring.by_secret(wrong)
    assert book.asked.count("by_hash") == 1
    clock.now += SETTINGS.refresh_seconds + 1
    with pytest.raises(Unauthenticated):
        await ring.by_secret(wrong)
    assert book.asked.count("by_hash") == 2
    for no_key in (b"", b"sk-123", "pk-schlüssel".encode(), b"pk-" + b"x" * 42, b"pk-" + b"x" * 44):
        with pytest.raises(Unauthenticated):
            await ring.by_secret(no_key)
    assert book.asked.count("by_hash") == 2, "what cannot be a secret is not looked up"


async def test_what_is_refused_is_remembered_within_bounds(
    ring: KeyRing, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pagoda.service.keys.ring._MOST_REFUSED", 10)
    for number in range(30):
        with pytest.raises(Unauthenticated):
            await ring.by_secret(b"pk-" + f"{number:043}".encode())
    assert len(ring._refused) == 10


async def test_a_revoked_key_ends_here_at_once_and_elsewhere_with_the_next_renewal(
    ring: KeyRing, book: Book, clock: Clock
) -> None:
    other = KeyRing(lambda: book, SETTINGS, clock)
    await other.start()
    issued = await issue(book)
    for each in (ring, other):
        await each.by_secret(told(issued))
    await book.revoke("one", LOCAL, keep_admin=True)
    ring.forget(issued.held.key.id)
    assert ring.known(told(issued)) is None
    with pytest.raises(Unauthenticated, match="revoked") as caught:
        await ring.by_secret(told(issued))
    assert caught.value.code == "key_revoked"
    with pytest.raises(Forbidden, match="revoked"):
        await ring.find(issued.held.key.id)
    assert other.known(told(issued)) is not None
    await other.refresh()
    assert other.known(told(issued)) is None
    assert other.get(issued.held.key.id) is None
    await other.close()


async def test_a_lookup_that_began_before_a_revocation_brings_nothing_back(ring: KeyRing, book: Book) -> None:
    issued = await issue(book)
    reached, go_on = asyncio.Event(), asyncio.Event()
    by_hash = KeyBook.by_hash

    async def slow(self: KeyBook, hash_: str) -> Held | None:
        found = await by_hash(self, hash_)
        reached.set()
        await go_on.wait()
        return found

    book.by_hash = slow.__get__(book)  # type: ignore[method-assign]
    looking = asyncio.create_task(ring.by_secret(told(issued)))
    await reached.wait()
    await book.revoke("one", LOCAL, keep_admin=True)
    ring.forget(issued.held.key.id)
    go_on.set()
    await looking
    assert ring.known(told(issued)) is None


async def test_a_key_ends_with_its_time(ring: KeyRing, book: Book, clock: Clock) -> None:
    issued = await issue(book, expires=datetime.now(UTC) + timedelta(seconds=50))
    assert await ring.by_secret(told(issued))
    clock.now += 49
    assert ring.known(told(issued)) is not None
    assert ring.get(issued.held.key.id) is not None
    clock.now += 2
    assert ring.known(told(issued)) is None
    assert ring.get(issued.held.key.id) is None
    with pytest.raises(Unauthenticated, match="expired"):
        await ring.by_secret(told(issued))


async def test_a_rotated_secret_works_for_its_grace_and_no_longer(ring: KeyRing, book: Book, clock: Clock) -> None:
    old = await issue(book)
    await ring.by_secret(told(old))
    new = await book.rotate("one", 40, LOCAL)
    await ring.refresh()
    assert ring.known(told(old)) is not None
    assert (await ring.by_secret(told(new))).id == old.held.key.id
    clock.now += 41
    assert ring.known(told(old)) is None
    with pytest.raises(Unauthenticated, match="replaced"):
        await ring.by_secret(told(old))
    assert ring.known(told(new)) is not None
    last = await book.rotate("one", 0, LOCAL)
    await ring.refresh()
    assert ring.known(told(new)) is None
    assert (await ring.by_secret(told(last))).id == old.held.key.id


async def test_changed_limits_arrive_and_unchanged_keys_stay_the_same_object(ring: KeyRing, book: Book) -> None:
    key = await ring.by_secret(told(await issue(book, team="blue")))
    await ring.refresh()
    assert ring.get(key.id) is key
    await book.limit_team("blue", Limits(concurrent=3), LOCAL)
    await ring.refresh()
    changed = ring.get(key.id)
    assert changed == replace(key, team_limits=Limits(concurrent=3))


@pytest.mark.parametrize("fault", [broken, frozen])
async def test_without_the_database_known_keys_work_for_a_while_and_others_are_refused(
    ring: KeyRing, book: Book, clock: Clock, fault: Callable[[], Awaitable[None]]
) -> None:
    issued, other = await issue(book), await issue(book, name="two")
    await ring.by_secret(told(issued))
    book.fault = fault
    ring._settings = replace(SETTINGS, lookup_seconds=0.1)
    await ring.refresh()
    assert not is_fresh(ring)
    assert ring.known(told(issued)) is not None
    with pytest.raises(StoreError) as caught:
        await ring.by_secret(told(other))
    assert (caught.value.code, caught.value.retryable) == ("keys_unavailable", True)
    clock.now += SETTINGS.stale_seconds + 1
    assert ring.known(told(issued)) is None
    with pytest.raises(StoreError):
        await ring.by_secret(told(issued))
    book.fault, ring._settings = None, SETTINGS
    for task in list(ring._flights.values()):  # those that hang
        task.cancel()
    await asyncio.sleep(0)
    await ring.refresh()
    assert is_fresh(ring)
    assert await ring.by_secret(told(issued))
    assert await ring.by_secret(told(other))


async def test_a_flood_of_unknown_keys_asks_a_few_at_a_time(book: Book) -> None:
    ring = KeyRing(lambda: book, replace(SETTINGS, lookup_seconds=30))
    most = running = 0

    async def slow() -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    book.fault = slow
    guesses = (ring.by_secret(b"pk-" + f"{number:043}".encode()) for number in range(60))
    outcomes = await asyncio.gather(*guesses, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unauthenticated}
    assert most == 4
    await ring.close()


async def test_keys_are_needed_once_an_admin_key_exists(ring: KeyRing, book: Book) -> None:
    assert not is_required(ring)
    await issue(book)
    await ring.refresh()
    assert not is_required(ring)
    await issue(book, name="root", scopes=frozenset({"admin"}))
    await ring.refresh()
    assert is_required(ring)
    await book.revoke("root", LOCAL, keep_admin=False)
    await ring.refresh()
    assert not is_required(ring)
    ring.demand()
    assert is_required(ring)


async def test_a_home_without_records_needs_no_keys_and_gets_no_records(tmp_path: Path) -> None:
    ring = KeyRing(lambda: None, SETTINGS)
    assert ring.required, "before anybody looked, nobody knows"
    await ring.start()
    assert (ring.required, ring.certain) == (False, True)
    with pytest.raises(Unauthenticated):
        await ring.by_secret(b"pk-" + b"x" * 43)
    await ring.close()


async def test_when_nobody_can_tell_whether_keys_are_needed_they_are(book: Book) -> None:
    book.fault = broken
    ring = KeyRing(lambda: book, SETTINGS)
    await ring.start()
    assert (ring.required, ring.certain) == (True, False)
    await ring.close()


async def test_the_environments_key_needs_no_database(book: Book, clock: Clock) -> None:
    book.fault = broken
    ring = KeyRing(lambda: book, replace(SETTINGS, admin_key=Secret("sixteen-characters")), clock)
    await ring.start()
    clock.now += 10 * SETTINGS.stale_seconds
    key = await ring.by_secret(b"sixteen-characters")
    assert (key.id, key.may("admin"), ring.required) == (ENVIRONMENT_KEY, True, True)
    assert ring.get(ENVIRONMENT_KEY) is key
    assert "sixteen" not in repr(key)
    await ring.close()


async def test_use_and_audit_are_written_in_the_background(ring: KeyRing, book: Book, clock: Clock) -> None:
    issued, unused = await issue(book), await issue(book, name="two")
    await ring.refresh(warm=True)
    await ring.by_secret(told(issued))
    ring.note(audit_row(LOCAL, "test", "a subject", "done"))
    await ring._write_pending(book)
    used = (await book.get("one")).last_used
    assert used is not None
    assert abs(used.timestamp() - clock.now) < 1
    assert (await book.get("two")).last_used is None, unused
    newest = (await book.audit(limit=1))[0]
    assert (newest.action, newest.subject) == ("test", "a subject")


async def test_no_row_holds_a_secret(ring: KeyRing, book: Book, tmp_path: Path) -> None:
    issued = await issue(book)
    await ring.by_secret(told(issued))
    await book.rotate("one", 10, LOCAL)
    async with (await book._store()).read() as session:
        from sqlalchemy import text

        rows = [
            *(await session.execute(text("SELECT * FROM keys"))),
            *(await session.execute(text("SELECT * FROM audit"))),
        ]
    assert rows
    assert issued.secret[8:] not in repr(rows)
