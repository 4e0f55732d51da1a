"""Runs of agents in the records: each write one transaction, and refused to a process that no longer owns the run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update
from sqlalchemy.orm import Session

from pagoda.core.errors import Conflict, NotFound
from pagoda.core.runs.process import Process, is_alive, this_process
from pagoda.core.runs.record import now
from pagoda.core.storage.agent_records import AgentRecord, AgentStepRecord
from pagoda.core.storage.records import RunRecord
from pagoda.core.storage.store import Store, mapped
from pagoda.core.storage.upsert import insertion_for
from pagoda.core.types import new_id
from pagoda.logic.agents.plan import AgentPlan, Limits, Step

KIND = "agent"
ENDED = frozenset({"done", "failed", "cancelled"})
_CHANGING = ("state", "input", "output", "begun", "ended")
_AGENTS: Any = AgentRecord.__table__  # the bare table, which is written several times as fast as objects
_TOUCH = (
    update(_AGENTS)
    .where(_AGENTS.c.run_id == bindparam("run"), _AGENTS.c.owner == bindparam("mine"))
    .values(owner=bindparam("mine"))
)
_SILENCE = timedelta(seconds=15)
"""A run whose owner cannot be looked at and was silent for so long is free."""


@dataclass(frozen=True, slots=True)
class AgentRun:
    """A run as it stood when it was read."""

    id: str
    tenant: str
    status: str
    """``created``, ``running``, ``waiting`` (for approval), ``interrupted``, ``done``, ``failed`` or ``cancelled``."""
    plan: AgentPlan
    created: datetime
    finished: datetime | None
    error: str | None
    answer: str | None
    limited: str | None
    cancelling: bool

    @property
    def ended(self) -> bool:
        """Whether it will not go on."""
        return self.status in ENDED

    def to_json(self) -> dict[str, Any]:
        """The run as people are told of it."""
        return {
            "id": self.id,
            "object": "agent.run",
            "status": self.status,
            "task": self.plan.task,
            "model": self.plan.model,
            "tools": list(self.plan.tools),
            "strategy": self.plan.strategy,
            "limits": asdict(self.plan.limits),
            "created_at": self.created.timestamp(),
            "finished_at": None if self.finished is None else self.finished.timestamp(),
            "answer": self.answer,
            "limited": self.limited,
            "error": self.error,
        }


class Journal:
    """The runs of agents of this home."""

    def __init__(self, store: Callable[[], Awaitable[Store]]) -> None:
        self._store = store
        found = this_process()
        self._owner = f"{found.pid} {found.started} {found.host} {new_id('w')}"

    async def create(self, tenant: str, plan: AgentPlan, run_id: str = "", parent: str | None = None) -> AgentRun:
        """A new run, which nobody works on yet; ``parent``: the run whose call it is."""
        run_id = run_id or new_id("agent")
        created = now()

        def change(session: Session) -> None:
            session.add(
                RunRecord(
                    id=run_id,
                    kind=KIND,
                    name=plan.task[:200],
                    status="created",
                    has_directory=False,
                    created=created,
                    seed=plan.seed or 0,
                    parent=parent,
                    config=asdict(plan),
                    attempt=0,
                )
            )
            session.add(AgentRecord(run_id=run_id, tenant=tenant))

        await (await self._store()).apply(mapped(change))
        return await self.get(tenant, run_id)

    async def get(self, tenant: str | None, run_id: str) -> AgentRun:
        """A run. Raises ``NotFound``, for another team's too; ``None`` asks for this machine's own user."""
        async with (await self._store()).read() as session:
            found = await session.run_sync(_pair, run_id, lock=False)
        if found is None or tenant not in (None, found[1].tenant):
            raise NotFound(f"There is no agent run {run_id[:100]!r}.", param="run_id")
        return _run(*found)

    async def find(self, tenant: str | None, limit: int) -> list[AgentRun]:
        """Runs of a team, newest first."""
        query = select(RunRecord, AgentRecord).join(AgentRecord, AgentRecord.run_id == RunRecord.id)
        query = query.order_by(RunRecord.created.desc(), RunRecord.id.desc()).limit(limit)
        if tenant is not None:
            query = query.where(AgentRecord.tenant == tenant)
        async with (await self._store()).read() as session:
            rows = (await session.execute(query)).all()
        return [_run(row[0], row[1]) for row in rows]

    async def steps(self, run_id: str) -> list[Step]:
        """The steps of a run, in order."""
        query = select(AgentStepRecord).where(AgentStepRecord.run_id == run_id).order_by(AgentStepRecord.place)
        async with (await self._store()).read() as session:
            return [_step(row) for row in await session.scalars(query)]

    async def below(self, run_id: str) -> list[str]:
        """The runs that are calls of a run and have not ended."""
        query = select(RunRecord.id).where(RunRecord.parent == run_id, RunRecord.status.not_in(ENDED))
        async with (await self._store()).read() as session:
            return list(await session.scalars(query))

    async def spent_below(self, run_id: str) -> tuple[int, int]:
        """Tokens, and billionths of the currency, of all turns in runs that are calls of a run."""
        query = select(AgentStepRecord.output).join(RunRecord, RunRecord.id == AgentStepRecord.run_id)
        query = query.where(RunRecord.parent == run_id, AgentStepRecord.kind == "model")
        async with (await self._store()).read() as session:
            turns = [output for output in await session.scalars(query) if output is not None]
        return sum(turn["tokens"] for turn in turns), sum(turn["money"] for turn in turns)

    async def take(self, run_id: str) -> None:
        """Work on a run from now on. Raises ``Conflict`` when it has ended or another process works on it."""

        def change(session: Session) -> None:
            found = _pair(session, run_id)
            if found is None:
                raise NotFound(f"There is no agent run {run_id[:100]!r}.", param="run_id")
            run, agent = found
            if run.status in ENDED:
                raise Conflict(f"The agent run {run_id} is {run.status}.")
            if agent.owner is not None and not _free(agent):
                raise Conflict(f"Somebody works on the agent run {run_id} already.")
            agent.owner, agent.heartbeat = self._owner, now()
            run.status, run.attempt = "running", run.attempt + 1
            run.started = run.started or now()

        await (await self._store()).apply(mapped(change))

    async def write(self, run_id: str, *steps: Step) -> None:
        """Write steps as they are now. Raises ``Conflict`` when another process has taken the run over."""

        rows = [{"run_id": run_id, "place": step.place, **_values(step)} for step in steps]

        def change(connection: Connection) -> None:
            self._check(connection, run_id)
            if rows:
                connection.execute(_upsert(connection.dialect.name), rows)

        await (await self._store()).apply(change)

    async def leave(
        self,
        run_id: str,
        status: str,
        *,
        answer: str | None = None,
        limited: str | None = None,
        error: str | None = None,
    ) -> None:
        """Work on it no longer. Raises ``Conflict`` when another process has taken the run over."""

        def change(session: Session) -> None:
            self._check(session.connection(), run_id)
            run, agent = _there(_pair(session, run_id), run_id)
            agent.owner, agent.answer, agent.limited = None, answer, limited
            run.status, run.error = status, error
            run.finished = now() if status in ENDED else None

        await (await self._store()).apply(mapped(change))

    async def beat(self, run_ids: Collection[str]) -> None:
        """Say that the work on runs goes on."""
        mine = update(AgentRecord).where(AgentRecord.run_id.in_(run_ids), AgentRecord.owner == self._owner)

        def change(session: Session) -> None:
            session.execute(mine.values(heartbeat=now()))

        await (await self._store()).apply(mapped(change))

    async def unwanted(self, run_ids: Collection[str]) -> list[str]:
        """Which of these runs somebody wants cancelled."""
        query = select(AgentRecord.run_id).where(AgentRecord.run_id.in_(run_ids), AgentRecord.cancelling.is_not(None))
        async with (await self._store()).read() as session:
            return list(await session.scalars(query))

    async def cancel(self, run_id: str) -> None:
        """Ask whoever works on a run to stop; where nobody does, it is cancelled at once."""

        def change(session: Session) -> None:
            run, agent = _there(_pair(session, run_id), run_id)
            if run.status in ENDED:
                raise Conflict(f"The agent run {run_id} is {run.status} already.")
            agent.cancelling = agent.cancelling or now()
            if agent.owner is None or _free(agent):
                agent.owner, run.status, run.finished = None, "cancelled", now()

        await (await self._store()).apply(mapped(change))

    async def decide(self, run_id: str, place: int | None, *, approve: bool, by: str, reason: str) -> Sequence[int]:
        """Approve or refuse a waiting call, or with ``None`` all of them; gives the places.

        Raises ``Conflict`` where there is none, or the run has ended.
        """

        def change(session: Session) -> list[int]:
            run, _ = _there(_pair(session, run_id), run_id)
            query = select(AgentStepRecord).where(AgentStepRecord.run_id == run_id, AgentStepRecord.state == "waiting")
            if place is not None:
                query = query.where(AgentStepRecord.place == place)
            rows = list(session.scalars(query.with_for_update()))
            if run.status in ENDED or not rows:
                raise Conflict(f"No call of the agent run {run_id} waits for approval there.")
            for row in rows:
                row.state = "approved" if approve else "refused"
                if approve:
                    row.input = {**row.input, "approved_by": by}
                else:
                    row.output, row.ended = {"by": by, "reason": reason, "result": None, "error": None}, now()
            return [row.place for row in rows]

        return await (await self._store()).apply(mapped(change))

    async def count(self, run_id: str) -> int:
        """How many steps a run has."""
        query = select(func.count()).select_from(AgentStepRecord).where(AgentStepRecord.run_id == run_id)
        async with (await self._store()).read() as session:
            return int(await session.scalar(query) or 0)

    def _check(self, connection: Connection, run_id: str) -> None:
        """Touch the run as its owner, which also keeps others from taking it until the transaction's end."""
        found = connection.execute(_TOUCH, {"run": run_id, "mine": self._owner})
        if not found.rowcount:
            raise Conflict(f"Another process works on the agent run {run_id} now.", code="run_taken")


@cache
def _upsert(dialect: str) -> Any:
    """Insert rows of steps, or replace those that are there; to build the statement costs as much as to execute it."""
    statement = insertion_for(dialect, AgentStepRecord.__table__)
    changed = {name: statement.excluded[name] for name in _CHANGING}
    return statement.on_conflict_do_update(index_elements=["run_id", "place"], set_=changed)


def _values(step: Step) -> dict[str, Any]:
    return {name: getattr(step, name) for name in ("kind", *_CHANGING)}


def _pair(session: Session, run_id: str, *, lock: bool = True) -> tuple[RunRecord, AgentRecord] | None:
    agent = session.get(AgentRecord, run_id, with_for_update=True if lock else None, populate_existing=True)
    run = session.get(RunRecord, run_id) if agent is not None else None
    return None if agent is None or run is None else (run, agent)


def _there(found: tuple[RunRecord, AgentRecord] | None, run_id: str) -> tuple[RunRecord, AgentRecord]:
    if found is None:
        raise NotFound(f"There is no agent run {run_id[:100]!r}.", param="run_id")
    return found


def _free(agent: AgentRecord) -> bool:
    """Whether whoever worked on it is gone."""
    pid, started, host, *_ = (agent.owner or "0 - -").split(" ")
    alive = is_alive(Process(int(pid), started, host))
    if alive is None:
        return agent.heartbeat is None or now() - agent.heartbeat > _SILENCE
    return not alive


def _run(run: RunRecord, agent: AgentRecord) -> AgentRun:
    config = dict(run.config)
    plan = AgentPlan(
        **{
            **config,
            "tools": tuple(config["tools"]),
            "approve": tuple(config["approve"]),
            "history": tuple(config["history"]),
            "limits": Limits(**config["limits"]),
        }
    )
    status = run.status
    if status == "running" and (agent.owner is None or _free(agent)):
        status = "interrupted"
    return AgentRun(
        run.id,
        agent.tenant,
        status,
        plan,
        run.created,
        run.finished,
        run.error,
        agent.answer,
        agent.limited,
        agent.cancelling is not None,
    )


def _step(row: AgentStepRecord) -> Step:
    return Step(row.place, row.kind, row.state, dict(row.input), row.output, row.begun, row.ended)  # type: ignore[arg-type]
