"""SQLite: what it promises, and what it says when it is locked, full, damaged or closed to us."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from pagoda.core.errors import Conflict, StoreError
from pagoda.core.settings import Settings
from pagoda.core.storage import migration
from pagoda.core.storage.records import RunRecord, UtcTime
from pagoda.core.storage.store import Store, mapped, open_store


def record(name: str) -> RunRecord:
    return RunRecord(
        id=name, kind="demo", name=name, status="created", has_directory=True, created=datetime.now(UTC), seed=1,
        config={"rate": 0.5}, attempt=0,
    )  # fmt: skip


async def add(store: Store, name: str) -> None:
    async def change(session: AsyncSession) -> None:
        session.add(record(name))

    await store.write(change)


async def names(store: Store) -> list[str]:
    async with store.read() as session:
        return list(await session.scalars(select(RunRecord.id).order_by(RunRecord.id)))


@asynccontextmanager
async def turn_taken(store: Store) -> AsyncIterator[None]:
    """A write goes on that whatever else changes the database waits for."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(session: AsyncSession) -> None:
        entered.set()
        await go_on.wait()

    first = asyncio.create_task(store.write(slow))
    await entered.wait()
    yield
    go_on.set()
    await first


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(Settings(home=tmp_path), patience=0.3) as store:
        yield store


@pytest.fixture
def outsider(tmp_path: Path, store: Store) -> Iterator[sqlite3.Connection]:
    """Another process's connection, as far as SQLite can tell."""
    connection = sqlite3.connect(tmp_path / "pagoda.db", isolation_level=None, timeout=0.1)
    yield connection
    connection.close()


async def test_sqlite_is_set_up_for_concurrency_and_safety(store: Store) -> None:
    async with store.read() as session:
        found = {
            name: (await session.execute(text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        }
    assert found == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2, "busy_timeout": 300}


async def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    async with open_store(Settings(home=tmp_path)) as store:
        await add(store, "one")
    async with open_store(Settings(home=tmp_path)) as store:
        async with store.read() as session:
            found = (await session.scalars(select(RunRecord))).one()
        assert (found.id, found.config) == ("one", {"rate": 0.5})
        assert found.created.tzinfo is UTC
    assert stat.S_IMODE((tmp_path / "pagoda.db").stat().st_mode) == 0o600


async def test_a_write_is_all_or_nothing(store: Store) -> None:
    async def change(session: AsyncSession) -> None:
        session.add(record("half"))
        await session.flush()
        raise KeyError("the caller's own error")

    with pytest.raises(KeyError, match="own error"):
        await store.write(change)
    assert await names(store) == []


async def test_the_callers_own_system_error_is_not_the_databases(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        async with store.read():
            Path("/does/not/exist").read_bytes()


async def test_a_read_cannot_write(store: Store) -> None:
    with pytest.raises(StoreError):
        async with store.read() as session:
            await session.execute(text("DELETE FROM runs"))
    await add(store, "afterwards")
    assert await names(store) == ["afterwards"]


async def test_a_read_sees_one_moment(store: Store) -> None:
    count = select(func.count()).select_from(RunRecord)
    async with store.read() as session:
        before = (await session.execute(count)).scalar()
        await add(store, "meanwhile")
        assert (await session.execute(count)).scalar() == before == 0
    assert await names(store) == ["meanwhile"]


async def test_writes_take_turns(store: Store) -> None:
    inside = 0

    async def change(session: AsyncSession) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        seen = (await session.execute(select(func.count()).select_from(RunRecord))).scalar()
        session.add(record(f"{seen:03}"))
        await session.flush()
        inside -= 1

    await asyncio.gather(*(store.write(change) for _ in range(40)))
    assert await names(store) == [f"{number:03}" for number in range(40)]


async def test_waiting_for_a_turn_is_not_waiting_for_a_lock(store: Store) -> None:
    """The store of these tests waits 0.3 s for SQLite's lock; a queue in the process may be longer than that."""
    entered = asyncio.Event()

    async def slow(session: AsyncSession) -> None:
        entered.set()
        await asyncio.sleep(0.5)
        session.add(record("first"))

    first = asyncio.create_task(store.write(slow))
    await entered.wait()
    await add(store, "second")
    await first
    assert await names(store) == ["first", "second"]


async def test_a_write_that_reads_first_is_not_overtaken(tmp_path: Path) -> None:
    """A deferred transaction would fail here: it has read, somebody else has written, and it cannot write any more."""
    settings = Settings(home=tmp_path)

    async def append(session: AsyncSession) -> None:
        seen = (await session.execute(select(func.count()).select_from(RunRecord))).scalar()
        await asyncio.sleep(0.001)
        session.add(record(f"{seen:03}"))

    async with open_store(settings) as one, open_store(settings) as two:
        await asyncio.gather(*((one, two)[number % 2].write(append) for number in range(20)))
        assert await names(one) == [f"{number:03}" for number in range(20)]


async def test_two_stores_on_one_file_lose_nothing(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    async with open_store(settings) as one, open_store(settings) as two:
        await asyncio.gather(*(add((one, two)[number % 2], f"{number:03}") for number in range(30)))
        assert await names(one) == await names(two) == [f"{number:03}" for number in range(30)]


async def test_a_cancelled_caller_leaves_the_store_usable(store: Store) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def slow(session: AsyncSession) -> None:
        entered.set()
        await go_on.wait()
        session.add(record("begun"))

    begun = asyncio.create_task(store.write(slow))
    await entered.wait()
    begun.cancel()
    with pytest.raises(asyncio.CancelledError):
        await begun
    go_on.set()
    await add(store, "next")
    assert await names(store) == ["begun", "next"]


async def test_a_caller_cancelled_before_its_turn_has_changed_nothing(store: Store) -> None:
    async with turn_taken(store):
        second = asyncio.create_task(add(store, "never"))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
    await add(store, "last")
    assert await names(store) == ["last"]


async def test_closing_finishes_what_has_begun(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    store = open_store(settings)
    await store.open()
    entered = asyncio.Event()

    async def slow(session: AsyncSession) -> None:
        entered.set()
        await session.execute(text("SELECT 1"))
        session.add(record("begun"))

    writing = asyncio.create_task(store.write(slow))
    await entered.wait()
    await store.close()
    await writing
    with pytest.raises(StoreError, match="not open"):
        await names(store)
    async with open_store(settings) as again:
        assert await names(again) == ["begun"]


async def test_a_taken_name_is_a_conflict(store: Store) -> None:
    await add(store, "one")
    with pytest.raises(Conflict):
        await add(store, "one")


def adding(name: str) -> Callable[[Connection], None]:
    """A plain change."""
    return mapped(lambda session: session.add(record(name)))


async def held_up(store: Store, *changes: Callable[[Connection], Any]) -> list[Any]:
    """Plain changes that wait together behind a write; what comes of each."""
    async with turn_taken(store):
        waiting = [asyncio.create_task(store.apply(change)) for change in changes]
        await asyncio.sleep(0)
        assert await names(store) == []
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_plain_change_is_on_the_disk_when_it_returns(store: Store, outsider: sqlite3.Connection) -> None:
    found = outsider.execute
    for number in range(3):
        await store.apply(adding(f"{number}"))
        assert found("SELECT max(id) FROM runs").fetchone() == (f"{number}",)
    with pytest.raises(Conflict):
        await store.apply(adding("1"))
    outsider.execute("BEGIN IMMEDIATE")
    waited = await asyncio.gather(*(store.apply(adding(f"{n}")) for n in range(3, 9)), return_exceptions=True)
    assert [getattr(each, "code", each) for each in waited] == ["store_busy"] * 6
    outsider.execute("ROLLBACK")
    settings = ("foreign_keys", "synchronous", "busy_timeout")
    one = await store.apply(
        lambda connection: [connection.exec_driver_sql(f"PRAGMA {each}").scalar() for each in settings]
    )
    assert one == [1, 2, 300]
    assert await names(store) == ["0", "1", "2"]


async def test_plain_changes_that_wait_share_a_transaction(store: Store) -> None:
    def change(name: str) -> Callable[[Connection], int]:
        def add_and_tell(connection: Connection) -> int:
            adding(name)(connection)
            return id(connection.get_transaction())

        return add_and_tell

    transactions = await held_up(store, change("a"), change("b"), change("c"))
    assert len(set(transactions)) == 1
    assert await names(store) == ["a", "b", "c"]


async def test_a_plain_change_falls_by_its_own_fault_alone(store: Store) -> None:
    def broken(connection: Connection) -> None:
        adding("half")(connection)
        raise KeyError("its own")

    a, key_error, conflict, b = await held_up(store, adding("a"), broken, adding("a"), adding("b"))
    assert (a, b) == (None, None)
    assert isinstance(key_error, KeyError)
    assert isinstance(conflict, Conflict)
    assert await names(store) == ["a", "b"]


async def test_a_plain_change_whose_caller_left_before_its_turn_is_not_made(store: Store) -> None:
    async def impatient() -> None:
        async with asyncio.timeout(0):
            await store.apply(adding("never"))

    with pytest.raises(TimeoutError):
        await impatient()
    await store.apply(adding("next"))
    assert await names(store) == ["next"]


async def test_closing_finishes_plain_changes_that_wait(tmp_path: Path) -> None:
    store = open_store(Settings(home=tmp_path))
    await store.open()
    waiting = [asyncio.create_task(store.apply(adding(f"{number:03}"))) for number in range(100)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*waiting)
    with pytest.raises(StoreError, match="not open"):
        await store.apply(adding("late"))
    async with open_store(Settings(home=tmp_path)) as again:
        assert len(await names(again)) == 100


async def test_locked_for_longer_than_patience(store: Store, outsider: sqlite3.Connection) -> None:
    outsider.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="busy") as caught:
        await add(store, "one")
    assert caught.value.retryable
    assert caught.value.code == "store_busy"
    assert await names(store) == []  # reading goes on meanwhile
    outsider.execute("ROLLBACK")
    await add(store, "one")
    assert await names(store) == ["one"]


async def test_a_full_disk_loses_only_the_write_that_did_not_fit(store: Store) -> None:
    await add(store, "before")

    async def too_much(session: AsyncSession) -> None:
        await session.execute(text("PRAGMA max_page_count=1"))  # SQLite raises it to the present size
        session.add_all([record(f"{number:05}" + "x" * 90) for number in range(500)])

    with pytest.raises(StoreError, match="is full; nothing was written") as caught:
        await store.write(too_much)
    assert (caught.value.code, caught.value.retryable) == ("store_full", True)
    assert await names(store) == ["before"]


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "pagoda.db").write_bytes(b"a letter to my grandmother, longer than a header" * 100)
    with pytest.raises(StoreError, match=r"damaged or is not a Pagoda database.*backup") as caught:
        await open_store(Settings(home=tmp_path)).open()
    assert caught.value.code == "store_corrupt"
    assert not caught.value.retryable


async def test_a_damaged_page_is_reported(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    async with open_store(settings) as store:
        for number in range(60):
            await add(store, f"{number:03}" + "x" * 80)
    content = bytearray((tmp_path / "pagoda.db").read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    (tmp_path / "pagoda.db").write_bytes(content)
    with pytest.raises(StoreError, match="damaged") as caught:
        async with open_store(settings) as store:
            await names(store)
    assert caught.value.code == "store_corrupt"


async def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "pagoda.db")
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="another program"):
        await open_store(Settings(home=tmp_path)).open()


async def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(StoreError, match=r"cannot be opened for writing \(.*PAGODA_HOME") as caught:
        await open_store(Settings(home=tmp_path / "home")).open()
    assert caught.value.code == "store_access"


@pytest.fixture
def closed_directory() -> Iterator[Path]:
    """A directory that this process may enter but not write; root becomes somebody else for the time."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield path
        finally:
            if root:
                os.seteuid(0)
            path.chmod(0o755)


async def test_a_directory_that_is_not_writable(closed_directory: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be opened for writing \(Permission denied\)"):
        await open_store(Settings(home=closed_directory)).open()


async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    async with open_store(settings) as store:

        async def change(session: AsyncSession) -> None:
            await session.execute(text(f"UPDATE {migration.VERSION_TABLE} SET version_num = '9999'"))

        await store.write(change)
    with pytest.raises(StoreError, match=r"newer Pagoda \(its version is 9999.*install that version") as caught:
        await open_store(settings).open()
    assert caught.value.code == "store_newer"


async def test_a_migration_under_way_elsewhere_is_waited_for_and_then_reported(tmp_path: Path) -> None:
    from filelock import FileLock

    with (
        FileLock(tmp_path / "pagoda.db.lock"),
        pytest.raises(StoreError, match=r"bringing .* up to date") as caught,
    ):
        await open_store(Settings(home=tmp_path), patience=0.02).open()
    assert caught.value.retryable


async def test_many_processes_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    stores = [open_store(settings) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    await asyncio.gather(*(add(store, str(number)) for number, store in enumerate(stores)))
    assert await names(stores[0]) == ["0", "1", "2", "3", "4", "5"]
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = command.upgrade

    def fail_at_the_end(config: Config, revision: str) -> None:
        real(config, revision)
        raise sqlite3.OperationalError("the lights went out")

    monkeypatch.setattr(command, "upgrade", fail_at_the_end)
    with pytest.raises(StoreError, match="lights"):
        await open_store(Settings(home=tmp_path)).open()
    connection = sqlite3.connect(tmp_path / "pagoda.db")
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()
    monkeypatch.undo()
    async with open_store(Settings(home=tmp_path)) as store:
        assert await names(store) == []


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=8)), timezone(timedelta(hours=-5))])))
def test_an_instant_survives_the_database(instant: datetime) -> None:
    kind, dialect = UtcTime(), sqlite.dialect()
    try:
        stored = kind.process_bind_param(instant, dialect)
    except OverflowError:  # a time zone's distance from the first or last year that Python knows
        return
    assert stored is not None
    found = kind.process_result_value(stored.replace(tzinfo=None), dialect)
    assert found == instant


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        UtcTime().process_bind_param(datetime(2026, 1, 1), sqlite.dialect())
