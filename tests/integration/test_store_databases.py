"""The store on both databases: the same migrations, the same behaviour, and PostgreSQL slow or gone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from pagoda.core.errors import Conflict, StoreError
from pagoda.core.setting_values import Secret
from pagoda.core.settings import Settings, Storage
from pagoda.core.storage.migration import VERSION_TABLE
from pagoda.core.storage.records import Record, RunRecord
from pagoda.core.storage.store import Store, mapped, open_store

if TYPE_CHECKING:
    from tests.integration.conftest import Cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else ""
    return Settings(home=tmp_path, storage=Storage(url=Secret(url)))


def on_postgresql(url: str) -> Settings:
    return Settings(home=Path("/nowhere"), storage=Storage(url=Secret(url)))


def record(name: str) -> RunRecord:
    return RunRecord(
        id=name, kind="demo", name=name, status="created", has_directory=True, created=datetime.now(UTC), seed=2**40,
        config={"文": ["字", 1.5, None]}, attempt=0,
    )  # fmt: skip


async def add(store: Store, name: str) -> None:
    async def change(session: AsyncSession) -> None:
        session.add(record(name))

    await store.write(change)


async def names(store: Store) -> list[str]:
    async with store.read() as session:
        return list(await session.scalars(select(RunRecord.id).order_by(RunRecord.id)))


def _differences(session: Any) -> list[Any]:
    connection: Connection = session.connection()
    options = {"compare_type": True, "compare_server_default": True, "version_table": VERSION_TABLE}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), Record.metadata))


async def test_models_and_migrations_agree(settings: Settings) -> None:
    async with open_store(settings) as store, store.read() as session:
        assert await session.run_sync(_differences) == []


async def test_a_record_comes_back_as_it_was(settings: Settings) -> None:
    async with open_store(settings) as store:
        await add(store, "one")
    async with open_store(settings) as store, store.read() as session:
        found = (await session.scalars(select(RunRecord))).one()
        assert (found.seed, found.config, found.created.tzinfo) == (2**40, {"文": ["字", 1.5, None]}, UTC)


async def test_a_taken_name_is_a_conflict(settings: Settings) -> None:
    async with open_store(settings) as store:
        await add(store, "one")
        with pytest.raises(Conflict, match="runs"):
            await add(store, "one")


async def test_a_failed_write_leaves_nothing(settings: Settings) -> None:
    async def change(session: AsyncSession) -> None:
        session.add(record("half"))
        await session.flush()
        raise KeyError("the caller's own")

    async with open_store(settings) as store:
        with pytest.raises(KeyError):
            await store.write(change)
        assert await names(store) == []


async def test_a_plain_change_is_a_write_on_either(settings: Settings) -> None:
    async with open_store(settings) as store:
        await store.apply(mapped(lambda session: session.add(record("one"))))
        with pytest.raises(Conflict, match="runs"):
            await store.apply(mapped(lambda session: session.add_all([record("two"), record("one")])))
        count = select(func.count()).select_from(RunRecord)
        assert await store.apply(lambda connection: connection.execute(count).scalar()) == 1
        assert await names(store) == ["one"]


async def test_a_plain_question_is_a_read_on_either(settings: Settings) -> None:
    count = select(func.count()).select_from(RunRecord)
    async with open_store(settings) as store:
        await add(store, "one")
        assert await store.ask(lambda connection: connection.execute(count).scalar()) == 1
        with pytest.raises(StoreError):
            await store.ask(lambda connection: connection.execute(delete(RunRecord)))
        await add(store, "two")
        assert await store.ask(lambda connection: connection.execute(count).scalar()) == 2
        assert await names(store) == ["one", "two"]


async def test_a_read_sees_one_moment_and_cannot_write(settings: Settings) -> None:
    count = select(func.count()).select_from(RunRecord)
    async with open_store(settings) as store:
        async with store.read() as session:
            assert (await session.execute(count)).scalar() == 0
            await add(store, "meanwhile")
            assert (await session.execute(count)).scalar() == 0
        with pytest.raises(StoreError):
            async with store.read() as session:
                await session.execute(text("DELETE FROM runs"))
        assert await names(store) == ["meanwhile"]


async def test_a_newer_database_is_refused(settings: Settings) -> None:
    async def change(session: AsyncSession) -> None:
        await session.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))

    async with open_store(settings) as store:
        await store.write(change)
    with pytest.raises(StoreError, match="newer Pagoda") as caught:
        await open_store(settings).open()
    assert "not-shown" not in str(caught.value)


async def test_many_may_open_a_new_database_at_once(settings: Settings) -> None:
    stores = [open_store(settings) for _ in range(5)]
    await asyncio.gather(*(store.open() for store in stores))
    await asyncio.gather(*(add(store, str(number)) for number, store in enumerate(stores)))
    assert await names(stores[0]) == ["0", "1", "2", "3", "4"]
    await asyncio.gather(*(store.close() for store in stores))


async def test_postgresql_may_hold_other_tables(postgresql: Cluster) -> None:
    url = postgresql.new_database()
    name = url.partition("@/")[2].partition("?")[0]
    sql = "CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('ffff')"
    postgresql.call("psql", "-h", str(postgresql.directory), "-U", "pagoda", "-qc", sql, name)
    async with open_store(on_postgresql(url)) as store:
        await add(store, "one")
        assert await names(store) == ["one"]


async def test_postgresql_that_stops_and_comes_back(own_postgresql: Cluster) -> None:
    url = own_postgresql.new_database()
    async with open_store(on_postgresql(url), patience=2) as store:
        await add(store, "before")
        own_postgresql.stop()
        for attempt in (add(store, "lost"), names(store)):
            with pytest.raises(StoreError, match="cannot be reached") as caught:
                await attempt
            assert (caught.value.code, caught.value.retryable) == ("store_gone", True)
            assert "not-shown" not in str(caught.value)
        own_postgresql.start()
        await add(store, "after")
        assert await names(store) == ["after", "before"]


async def test_postgresql_that_dies_inside_a_transaction(own_postgresql: Cluster) -> None:
    async with open_store(on_postgresql(own_postgresql.new_database()), patience=2) as store:

        async def change(session: AsyncSession) -> None:
            session.add(record("half"))
            await session.flush()
            await asyncio.to_thread(own_postgresql.stop)
            await session.execute(text("SELECT 1"))

        with pytest.raises(StoreError, match="cannot be reached") as caught:
            await store.write(change)
        assert caught.value.retryable
        own_postgresql.start()
        assert await names(store) == []


async def test_postgresql_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        await open_store(on_postgresql(f"postgresql://ann:hunter2@/pagoda?host={tmp_path}"), patience=2).open()
    assert "hunter2" not in str(caught.value)


async def test_postgresql_without_that_database(postgresql: Cluster) -> None:
    url = f"postgresql://pagoda:hunter2@/missing?host={postgresql.directory}"
    with pytest.raises(StoreError, match=r"let nobody in .*missing") as caught:
        await open_store(on_postgresql(url)).open()
    assert caught.value.code == "store_access"
    assert "hunter2" not in str(caught.value)


async def test_postgresql_locked_by_somebody_else(postgresql_url: str) -> None:
    settings = on_postgresql(postgresql_url)
    async with open_store(settings) as holder, open_store(settings, patience=1) as store:
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def hold(session: AsyncSession) -> None:
            await session.execute(text("LOCK TABLE runs"))
            entered.set()
            await go_on.wait()

        holding = asyncio.create_task(holder.write(hold))
        await entered.wait()
        with pytest.raises(StoreError, match="busy") as caught:
            await add(store, "one")
        assert (caught.value.code, caught.value.retryable) == ("store_busy", True)
        go_on.set()
        await holding
        await add(store, "one")


async def test_a_statement_that_takes_too_long_is_ended(postgresql_url: str) -> None:
    async with open_store(on_postgresql(postgresql_url), patience=1) as store:
        with pytest.raises(StoreError, match="busy"):
            async with store.read() as session:
                await session.execute(text("SELECT pg_sleep(60)"))


async def test_a_connection_that_ends_before_its_session_is_the_databases_fault(postgresql_url: str) -> None:
    async with open_store(on_postgresql(postgresql_url)) as store, open_store(on_postgresql(postgresql_url)) as other:

        async def last_words() -> None:
            async with store.read() as session:
                own = (await session.execute(text("SELECT pg_backend_pid()"))).scalar()
                async with other.read() as beside:
                    await beside.execute(text(f"SELECT pg_terminate_backend({own}, 5000)"))

        with pytest.raises(StoreError) as caught:
            await last_words()
        assert caught.value.retryable
        await add(store, "one")
