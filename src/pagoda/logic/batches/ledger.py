"""The batches that were asked for over HTTP: a row says what was wanted, the directory of the run how it stands.

A run whose process was killed is resumed by whoever looks at its batch next, and by the service when it starts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from pagoda.core.errors import Conflict, InvalidRequest, NotFound
from pagoda.core.runs import Run, Runs
from pagoda.core.runs.files import read_json
from pagoda.core.runs.record import now
from pagoda.core.storage.records import BatchRecord, FileRecord
from pagoda.core.storage.store import Store
from pagoda.core.types import Json, new_id
from pagoda.logic.batches.shelf import FileShelf

logger = logging.getLogger(__name__)

KIND = "batch"
STATE = "batch.json"
_WINDOW = timedelta(hours=24)
_MOST_ATTEMPTS = 50  # a batch whose process dies this often will not be saved by another try
_FINAL = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch at the moment it was read."""

    record: BatchRecord
    status: str
    facts: Mapping[str, Json]
    """What its run wrote down: times, counts, usage, errors."""
    output: bool
    """Whether there is an output file now; likewise ``failures`` for the error file."""
    failures: bool


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a batch is: its team, and the key that its requests are made with."""

    tenant: str = "local"
    key_id: str | None = None


class Batches:
    """The batches of this home."""

    def __init__(self, store: Callable[[], Awaitable[Store]], shelf: FileShelf, runs: Runs) -> None:
        self._store = store
        self._shelf = shelf
        self._runs = runs

    async def create(self, owner: Owner, input_file_id: str, endpoint: str, labels: Mapping[str, str]) -> Batch:
        """Begin a batch. Raises ``NotFound`` for an unknown file."""
        file = await self._shelf.get(owner.tenant, input_file_id)
        if file.purpose != "batch":
            raise InvalidRequest(f"{input_file_id} is not a file for batches.", param="input_file_id")
        created = now()
        record = BatchRecord(
            id=new_id("batch"),
            run_id="",
            endpoint=endpoint,
            input_file_id=input_file_id,
            output_file_id=new_id("file"),
            error_file_id=new_id("file"),
            created=created,
            expires=created + _WINDOW,
            cancelling=None,
            ended=False,
            labels=dict(labels),
            tenant=owner.tenant,
        )
        config = {
            "input": str(self._shelf.path(input_file_id)),
            "output": str(self._shelf.path(record.output_file_id)),
            "errors": str(self._shelf.path(record.error_file_id)),
            "endpoint": endpoint,
            "expires_at": record.expires.timestamp(),
            "tenant": owner.tenant,
            "key_id": owner.key_id,
        }
        run = await asyncio.to_thread(self._runs.create, KIND, config, name=record.id)
        record.run_id = run.id

        async def change(session: AsyncSession) -> None:
            session.add(record)

        await (await self._store()).write(change)
        await asyncio.to_thread(self._runs.start, run.id)
        return await self._look(record)

    async def get(self, tenant: str, batch_id: str) -> Batch:
        """A batch as it stands now. Raises ``NotFound``, for another team's too."""
        return await self._look(await self._record(tenant, batch_id))

    async def find(self, tenant: str, *, after: str | None, limit: int) -> list[Batch]:
        """A team's batches, newest first, from the one after ``after`` on."""
        query = select(BatchRecord).where(BatchRecord.tenant == tenant)
        query = query.order_by(BatchRecord.created.desc(), BatchRecord.id.desc()).limit(limit)
        if after is not None:
            last = await self._record(tenant, after)
            query = query.where(tuple_(BatchRecord.created, BatchRecord.id) < tuple_(last.created, last.id))
        async with (await self._store()).read() as session:
            records = list(await session.scalars(query))
        return [await self._look(record) for record in records]

    async def cancel(self, tenant: str, batch_id: str) -> Batch:
        """Ask a batch to stop; what it has answered is kept. Raises ``Conflict`` when it has ended."""
        batch = await self.get(tenant, batch_id)
        if batch.record.ended:
            raise Conflict(f"The batch {batch_id} is {batch.status} already.")
        record = await self._change(batch.record, cancelling=batch.record.cancelling or now())
        try:
            await asyncio.to_thread(self._runs.cancel, record.run_id)
        except Conflict:
            logger.info("%s ended while it was being cancelled", batch_id)
        return await self._look(record)

    async def resume_interrupted(self) -> None:
        """Go on with every batch whose process is gone without a word."""
        for run in await asyncio.to_thread(self._runs.find, kind=KIND, status="interrupted"):
            if run.name.startswith("batch-"):  # those of the command line are resumed by their command
                await self._resume(run)

    async def _look(self, record: BatchRecord) -> Batch:
        try:
            run = await asyncio.to_thread(self._runs.get, record.run_id)
        except NotFound:
            facts: dict[str, Any] = {"errors": [{"code": "run_gone", "message": "The directory of its run is gone."}]}
            return Batch(record, "failed", facts, *self._made(record))
        facts = await asyncio.to_thread(_facts, run)
        status = _status(record, run, facts)
        if run.status == "interrupted" and record.cancelling is None and not await self._resume(run):
            status = "failed"
        if status in _FINAL and not record.ended:
            record = await self._settle(record)
        return Batch(record, status, facts, *(self._made(record) if record.ended else (False, False)))

    async def _resume(self, run: Run) -> bool:
        if run.attempt >= _MOST_ATTEMPTS:
            return False
        try:
            await asyncio.to_thread(self._runs.resume, run.id)
        except Conflict:
            logger.info("somebody else resumes %s", run.id)
        return True

    async def _settle(self, record: BatchRecord) -> BatchRecord:
        """Enter the files that an ended batch has made."""
        made = [
            FileRecord(
                id=file_id,
                filename=f"{record.id}_{what}.jsonl",
                purpose="batch_output",
                bytes=self._shelf.path(file_id).stat().st_size,
                created=now(),
                tenant=record.tenant,
            )
            for file_id, what, is_there in zip(
                (record.output_file_id, record.error_file_id), ("output", "error"), self._made(record), strict=True
            )
            if is_there
        ]
        await self._shelf.enter(*made)
        return await self._change(record, ended=True)

    def _made(self, record: BatchRecord) -> tuple[bool, bool]:
        paths = (self._shelf.path(record.output_file_id), self._shelf.path(record.error_file_id))
        output, errors = (path.exists() and path.stat().st_size > 0 for path in paths)
        return output, errors

    async def _record(self, tenant: str, batch_id: str) -> BatchRecord:
        async with (await self._store()).read() as session:
            record = await session.get(BatchRecord, batch_id)
        if record is None or record.tenant != tenant:
            raise NotFound(f"There is no batch {batch_id[:100]!r}.", param="batch_id")
        return record

    async def _change(
        self, record: BatchRecord, *, cancelling: datetime | None = None, ended: bool = False
    ) -> BatchRecord:
        values: dict[str, Any] = {"cancelling": cancelling or record.cancelling, "ended": ended or record.ended}

        async def change(session: AsyncSession) -> None:
            await session.execute(update(BatchRecord).where(BatchRecord.id == record.id).values(**values))

        await (await self._store()).write(change)
        return await self._record(record.tenant, record.id)


def _facts(run: Run) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = read_json(run.directory / "artifacts" / STATE)
    except (FileNotFoundError, ValueError):  # it has not begun
        facts = {}
    if run.status in ("failed", "broken") and "errors" not in facts:
        facts |= {"errors": [{"code": "run_failed", "message": run.error or "Its run failed."}]}
    if run.finished is not None:
        facts["finished_at"] = int(run.finished.timestamp())
    return facts


def _status(record: BatchRecord, run: Run, facts: Mapping[str, Any]) -> str:
    if run.status == "done":
        return str(facts.get("status", "completed"))
    if run.status in ("failed", "broken"):
        return "failed"
    if run.status == "cancelled" or (run.status == "interrupted" and record.cancelling is not None):
        return "cancelled"
    if record.cancelling is not None:
        return "cancelling"
    said = str(facts.get("status", "validating"))
    if said in _FINAL:  # its run is about to end, and only then it has a time and its files are whole
        return "validating" if said == "failed" else "finalizing"
    return said
