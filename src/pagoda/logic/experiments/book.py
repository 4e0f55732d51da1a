"""The book of experiments: their rows, each change counted, and what was seen and came of it.

Not here: what is asked while requests run (``roster``), and what the outcomes say (``verdict``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from pagoda.core.errors import Conflict, InvalidRequest, NotFound
from pagoda.core.runs.record import now
from pagoda.core.storage.experiment_records import ExperimentRecord, ExposureRecord, OutcomeRecord
from pagoda.core.storage.store import Store
from pagoda.core.storage.upsert import insertion
from pagoda.core.types import new_id
from pagoda.logic.experiments.assignment import Assignment, Slice, ramped
from pagoda.logic.experiments.design import Design, Target, check_name, check_shares, design_from, design_json

Row: TypeAlias = dict[str, Any]

_MOST_EXPERIMENTS = 100
_REVISIONS = select(ExperimentRecord.id, ExperimentRecord.revision).where(ExperimentRecord.state == "running")
"""Asked twice a second: to build it costs more than to answer it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment at the moment it was read."""

    id: str
    team: str
    name: str
    state: str
    """``draft``, ``running`` or ``stopped``."""
    target: Target
    design: Design
    exposure: float
    slices: tuple[Slice, ...]
    revision: int
    created: datetime
    started: datetime | None
    stopped: datetime | None

    @property
    def assignment(self) -> Assignment:
        """Its rule."""
        return Assignment(self.id, self.team, self.target, self.design, self.exposure, self.slices)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one metric: in the order in which it came."""

    variants: tuple[str, ...]
    slices: tuple[int, ...]
    values: tuple[float, ...]


class ExperimentBook:
    """The experiments of this home or database. ``store`` gives the records, opened."""

    def __init__(self, store: Callable[[], Awaitable[Store]]) -> None:
        self._store = store

    async def create(self, team: str, name: str, target: Target, design: Design, exposure: float) -> Experiment:
        """Enter a draft. Raises ``InvalidRequest``, and ``Conflict`` where the team has one of that name."""
        check_name(name, "name")
        wanted = "model" if target.kind == "model" else "version"
        if getattr(design.control, wanted) is None:
            raise InvalidRequest(f"Variants of a {target.kind} name a {wanted} each.", param="variants")
        record = ExperimentRecord(
            id=new_id("exp"),
            team=team,
            name=name,
            state="draft",
            target_kind=target.kind,
            target=target.key,
            design=design_json(design),
            exposure=check_exposure(exposure, design),
            slices=_slices_json(ramped((), exposure, design.shares)),
            revision=1,
            created=now(),
            started=None,
            stopped=None,
        )

        async def change(session: AsyncSession) -> None:
            taken = select(ExperimentRecord.id).where(ExperimentRecord.team == team, ExperimentRecord.name == name)
            if await session.scalar(taken) is not None:
                raise Conflict(f"There is already an experiment {name!r}; choose another name.", param="name")
            session.add(record)

        await (await self._store()).write(change)
        return _experiment(record)

    async def find(self, team: str, *, state: str | None = None) -> list[Experiment]:
        """A team's experiments, newest first."""
        query = select(ExperimentRecord).where(ExperimentRecord.team == team)
        if state is not None:
            query = query.where(ExperimentRecord.state == state)
        return await self._read(query.order_by(ExperimentRecord.created.desc(), ExperimentRecord.id))

    async def running(self) -> list[Experiment]:
        """Those of all teams that run."""
        return await self._read(select(ExperimentRecord).where(ExperimentRecord.state == "running"))

    async def revisions(self) -> dict[str, int]:
        """How often those that run were changed, by id."""
        store = await self._store()
        return await store.ask(lambda connection: {row[0]: row[1] for row in connection.execute(_REVISIONS)})

    async def get(self, team: str, reference: str) -> Experiment:
        """An experiment by its id or name. Raises ``NotFound``, for another team's too."""
        async with (await self._store()).read() as session:
            return _experiment(await _record(session, team, reference, lock=False))

    async def start(self, team: str, reference: str) -> Experiment:
        """Let it run, for the first time or again. Raises ``Conflict`` where another one runs on the target."""

        async def change(session: AsyncSession) -> Experiment:
            record = await _record(session, team, reference, lock=False)
            same = select(ExperimentRecord).where(
                ExperimentRecord.team == team,
                ExperimentRecord.target_kind == record.target_kind,
                ExperimentRecord.target == record.target,
            )  # all of them, so that two that are started at once do not both run
            for rival in await session.scalars(same.order_by(ExperimentRecord.id).with_for_update()):
                if rival.state == "running" and rival.id != record.id:
                    raise Conflict(f"The experiment {rival.name!r} runs on {record.target!r} already; stop it first.")
            await session.refresh(record)
            record.started = record.started or now()
            record.state, record.stopped = "running", None
            record.revision += 1
            return _experiment(record)

        return await (await self._store()).write(change)

    async def stop(self, team: str, reference: str) -> Experiment:
        """End it: everybody gets the target's own again. What was seen stays. Raises ``Conflict`` unless it runs."""

        async def change(session: AsyncSession) -> Experiment:
            record = await _record(session, team, reference)
            if record.state != "running":
                raise Conflict(f"The experiment {record.name!r} does not run; it is a {record.state} one.")
            record.state, record.stopped = "stopped", now()
            record.revision += 1
            return _experiment(record)

        return await (await self._store()).write(change)

    async def ramp(
        self, team: str, reference: str, exposure: float, shares: Mapping[str, float] | None = None
    ) -> Experiment:
        """Open it to a larger or smaller share of units; ``shares`` holds for those who are new, by variant.

        Raises ``InvalidRequest`` for shares that nobody new would get.
        """

        async def change(session: AsyncSession) -> Experiment:
            record = await _record(session, team, reference)
            before = _experiment(record)
            given = _given_shares(before, shares)
            record.exposure = check_exposure(exposure, before.design)
            after = ramped(before.slices, exposure, given)
            if shares is not None and len(after) == len(before.slices):
                if before.design.unit != "request":
                    raise InvalidRequest(
                        "New shares hold for new units only, so that nobody is moved; raise the exposure with them.",
                        param="shares",
                    )
                after = (*after, Slice(after[-1].upto, given))
            record.slices = _slices_json(after)
            record.revision += 1
            return _experiment(record)

        return await (await self._store()).write(change)

    async def adapt(self, experiment: Experiment, shares: tuple[float, ...]) -> bool:
        """Share out by ``shares`` from now on; false where somebody else changed the experiment meanwhile."""
        slices = (*experiment.slices, Slice(experiment.slices[-1].upto, check_shares(shares, "shares")))

        async def change(session: AsyncSession) -> bool:
            done = await session.execute(
                update(ExperimentRecord)
                .where(ExperimentRecord.id == experiment.id, ExperimentRecord.revision == experiment.revision)
                .values(slices=_slices_json(slices), revision=experiment.revision + 1)
                .returning(ExperimentRecord.id)
            )
            return done.first() is not None

        return await (await self._store()).write(change)

    async def enter(self, exposures: Sequence[Row], outcomes: Sequence[Row]) -> None:
        """Keep what was seen. Of a unit's outcomes by one metric the first counts."""

        async def change(session: AsyncSession) -> None:
            if exposures:
                await session.execute(insert(ExposureRecord), list(exposures))
            if outcomes:
                await session.execute(insertion(session, OutcomeRecord).on_conflict_do_nothing(), list(outcomes))

        await (await self._store()).write(change)

    async def exposures(
        self, team: str, *, request: str | None = None, experiment: str | None = None, unit: str | None = None
    ) -> list[ExposureRecord]:
        """Requests that were answered under experiments: by their id, or those of an experiment's unit."""
        query = select(ExposureRecord).where(ExposureRecord.team == team).order_by(ExposureRecord.id)
        wanted = (
            (ExposureRecord.request_id, request),
            (ExposureRecord.experiment_id, experiment),
            (ExposureRecord.unit, unit),
        )
        query = query.where(*(column == value for column, value in wanted if value is not None))
        async with (await self._store()).read() as session:
            return list(await session.scalars(query.limit(_MOST_EXPERIMENTS)))

    async def units(self, experiment_id: str) -> dict[tuple[str, int], int]:
        """How many units were seen, by variant and slice."""
        query = (
            select(ExposureRecord.variant, ExposureRecord.slice, func.count(ExposureRecord.unit.distinct()))
            .where(ExposureRecord.experiment_id == experiment_id)
            .group_by(ExposureRecord.variant, ExposureRecord.slice)
        )
        async with (await self._store()).read() as session:
            return {(variant, slice_): count for variant, slice_, count in await session.execute(query)}

    async def seen(self, experiment_id: str, metric: str) -> Seen:
        """All outcomes by a metric."""
        query = (
            select(OutcomeRecord.variant, OutcomeRecord.slice, OutcomeRecord.value)
            .where(OutcomeRecord.experiment_id == experiment_id, OutcomeRecord.metric == metric)
            .order_by(OutcomeRecord.id)
        )
        async with (await self._store()).read() as session:
            rows = list(await session.execute(query))
        return Seen(*(tuple(column) for column in zip(*rows, strict=True))) if rows else Seen((), (), ())

    async def _read(self, query: Any) -> list[Experiment]:
        async with (await self._store()).read() as session:
            return [_experiment(record) for record in await session.scalars(query)]


def check_exposure(exposure: float, design: Design) -> float:
    """The share of units that take part. Raises ``InvalidRequest``."""
    if not 0 < exposure <= 1 - design.holdout:
        raise InvalidRequest(
            f"The exposure must lie above 0 and not above {1 - design.holdout:g}, what the hold-out leaves.",
            param="exposure",
        )
    return exposure


def _given_shares(experiment: Experiment, shares: Mapping[str, float] | None) -> tuple[float, ...]:
    if shares is None:
        return experiment.slices[-1].shares
    names = [variant.name for variant in experiment.design.variants]
    if set(shares) != set(names):
        raise InvalidRequest(f"Give a share for each of {', '.join(names)}.", param="shares")
    return check_shares(tuple(shares[name] for name in names), "shares")


async def _record(session: AsyncSession, team: str, reference: str, *, lock: bool = True) -> ExperimentRecord:
    named = (ExperimentRecord.id == reference) | (ExperimentRecord.name == reference)
    query = select(ExperimentRecord).where(ExperimentRecord.team == team, named)
    found = await session.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise NotFound(f"There is no experiment {reference[:100]!r}.", code="experiment_not_found")
    return found


def _experiment(record: ExperimentRecord) -> Experiment:
    name, _, label = record.target.rpartition("@") if record.target_kind == "prompt" else (record.target, "", "")
    return Experiment(
        id=record.id,
        team=record.team,
        name=record.name,
        state=record.state,
        target=Target(kind=record.target_kind, name=name, label=label),  # type: ignore[arg-type]
        design=design_from(record.design),
        exposure=record.exposure,
        slices=tuple(Slice(each["upto"], tuple(each["shares"])) for each in record.slices["slices"]),
        revision=record.revision,
        created=record.created,
        started=record.started,
        stopped=record.stopped,
    )


def _slices_json(slices: Sequence[Slice]) -> dict[str, Any]:
    return {"slices": [{"upto": each.upto, "shares": list(each.shares)} for each in slices]}
