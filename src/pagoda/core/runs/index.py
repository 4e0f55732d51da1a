"""Runs as records, to be found by their fields: copied from the directories, which are the truth.

Nobody needs to keep the table in step: whoever asks refreshes it first, and it can be thrown away. Only this module
of the package needs the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from pagoda.core.runs.ledger import Runs
from pagoda.core.runs.record import Run
from pagoda.core.storage.records import RunRecord
from pagoda.core.storage.store import Store


async def refresh_index(store: Store, found: Sequence[Run]) -> int:
    """Make the records equal to the runs in ``found`` (all of them: others are dropped). Gives how many changed.

    Runs without a directory (agents) are rows only and stay untouched.
    """
    wanted = {run.id: _values(run) for run in found}
    async with store.read() as session:
        rows = await session.scalars(select(RunRecord).where(RunRecord.has_directory))
        present = {row.id: {key: getattr(row, key) for key in _COLUMNS} for row in rows}
    changed = {key: values for key, values in wanted.items() if present.get(key) != values}
    vanished = sorted(set(present) - set(wanted))
    if not changed and not vanished:
        return 0

    async def change(session: AsyncSession) -> None:
        if vanished:
            await session.execute(delete(RunRecord).where(RunRecord.id.in_(vanished), RunRecord.has_directory))
        for values in changed.values():
            await session.merge(RunRecord(**values))

    await store.write(change)
    return len(changed) + len(vanished)


async def rebuild_index(store: Store, runs: Runs) -> int:
    """Drop the records of all runs that have a directory and make them anew. Gives how many there are."""
    found = runs.find()

    async def change(session: AsyncSession) -> None:
        await session.execute(delete(RunRecord).where(RunRecord.has_directory))
        session.add_all([RunRecord(**_values(run)) for run in found])

    await store.write(change)
    return len(found)


async def find_runs(
    store: Store,
    *,
    kind: str | None = None,
    status: str | None = None,
    parent: str | None = None,
    before: str | None = None,
    limit: int = 50,
) -> list[RunRecord]:
    """Records, newest first; ``before`` is the id of the last one of the page before."""
    query = select(RunRecord).order_by(RunRecord.id.desc()).limit(limit)
    for column, value in ((RunRecord.kind, kind), (RunRecord.status, status), (RunRecord.parent, parent)):
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(RunRecord.id < before)
    async with store.read() as session:
        return list(await session.scalars(query))


_COLUMNS = tuple(column.key for column in RunRecord.__mapper__.column_attrs)


def _values(run: Run) -> dict[str, Any]:
    progress, process = run.progress, run.process
    return {
        "id": run.id,
        "kind": run.kind[:32],
        "name": run.name[:200],
        "status": run.status,
        "has_directory": True,
        "created": run.created,
        "started": run.started,
        "finished": run.finished,
        "seed": run.seed,
        "parent": run.parent,
        "config": dict(run.config),
        "error": run.error,
        "attempt": run.attempt,
        "stage": progress and progress.stage[:200],
        "done": progress and progress.done,
        "total": progress and progress.total,
        "pid": process and process.pid,
        "host": process and process.host[:300],
        "heartbeat": run.heartbeat,
    }
