"""The table of runs on both databases: a copy of the directories that can be thrown away."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from pagoda.core.runs import RunContext, RunRegistry, Runs, execute
from pagoda.core.runs.index import find_runs, rebuild_index, refresh_index
from pagoda.core.setting_values import Secret
from pagoda.core.settings import Settings, Storage
from pagoda.core.storage.records import RunRecord
from pagoda.core.storage.store import Store, open_store


def work(context: RunContext) -> None:
    context.progress("数", 2, 2)


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else ""
    return Settings(home=tmp_path, storage=Storage(url=Secret(url)))


@pytest.fixture
def runs(settings: Settings) -> Runs:
    return Runs(settings, RunRegistry({"work": work, "other": work}))


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    async with open_store(settings) as store:
        yield store


async def ids(store: Store) -> list[str]:
    return [row.id for row in await find_runs(store)]


async def test_refreshing_follows_the_directories(settings: Settings, runs: Runs, store: Store) -> None:
    first, second = runs.create("work", {"rate": 0.1}, seed=2**40, name="n", parent="p"), runs.create("other", {})
    assert await refresh_index(store, runs.find()) == 2
    assert await refresh_index(store, runs.find()) == 0
    execute(first.id, runs.registry, settings)
    assert await refresh_index(store, runs.find()) == 1
    row = next(row for row in await find_runs(store) if row.id == first.id)
    assert (row.status, row.stage, row.done, row.total, row.seed) == ("done", "数", 2, 2, 2**40)
    assert (row.config, row.name, row.parent, row.attempt) == ({"rate": 0.1}, "n", "p", 1)
    shutil.rmtree(first.directory)
    assert await refresh_index(store, runs.find()) == 1
    assert await ids(store) == [second.id]


async def test_rebuilding_restores_what_was_lost_and_spares_runs_without_directory(runs: Runs, store: Store) -> None:
    created = [runs.create("work", {"number": number}).id for number in range(3)]
    broken = runs.create("work", {})
    (broken.directory / "run.json").write_text("{")

    async def spoil(session: AsyncSession) -> None:
        await session.execute(delete(RunRecord))
        now = datetime.now(UTC)
        rows = [("20200101-000000-agent-0000", "agent", False), ("20200101-000000-work-0000", "work", True)]
        for name, kind, has_directory in rows:
            session.add(
                RunRecord(
                    id=name,
                    kind=kind,
                    name="",
                    status="done",
                    has_directory=has_directory,
                    created=now,
                    seed=0,
                    config={},
                    attempt=1,
                )
            )

    await store.write(spoil)
    assert await rebuild_index(store, runs) == 4
    assert await ids(store) == [*sorted([*created, broken.id], reverse=True), "20200101-000000-agent-0000"]
    assert [row.id for row in await find_runs(store, status="broken")] == [broken.id]
    assert await refresh_index(store, runs.find()) == 0


async def test_runs_are_found_by_their_fields_page_by_page(runs: Runs, store: Store) -> None:
    for number in range(5):
        runs.create("work" if number % 2 else "other", {}, parent="p" if number == 0 else None)
    await rebuild_index(store, runs)
    everything = await ids(store)
    page = await find_runs(store, limit=2)
    rest = await find_runs(store, before=page[-1].id)
    assert [row.id for row in [*page, *rest]] == everything == sorted(everything, reverse=True)
    assert len(await find_runs(store, kind="work")) == 2
    assert len(await find_runs(store, parent="p", kind="other", status="created")) == 1
