"""Feedback as it is kept: one word of each author on each thing, tied to a request that there was.

What it says becomes the outcome of every experiment that the request was part of. Not here: what a complaint sets off
(``logic.reviews``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from pagoda.core.errors import Conflict, NotFound
from pagoda.core.runs.record import now
from pagoda.core.storage.experiment_records import ExposureRecord, FeedbackRecord
from pagoda.core.storage.records import ContentRecord, UsageRecord
from pagoda.core.storage.store import Store
from pagoda.core.storage.text import storable
from pagoda.core.storage.upsert import insertion
from pagoda.core.types import new_id
from pagoda.logic.experiments.assignment import Trial
from pagoda.logic.experiments.book import Experiment, ExperimentBook
from pagoda.logic.experiments.sightings import outcome_rows
from pagoda.logic.feedback.saying import About, Saying
from pagoda.service.note import request_of

_HELD_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Given:
    """Feedback as it is kept."""

    record: FeedbackRecord
    repeated: bool
    """The very same was said before; nothing changed."""
    counted: tuple[str, ...]
    """Names of the experiments that it is an outcome of."""


class FeedbackBook:
    """The feedback of this home or database.

    ``settle`` has what this process still holds in memory written; ``again`` waits until other processes have too.
    """

    def __init__(
        self,
        store: Callable[[], Awaitable[Store]],
        experiments: ExperimentBook,
        settle: Callable[[], Awaitable[None]],
        again: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._experiments = experiments
        self._settle = settle
        self._again = again

    async def give(self, team: str, author: str, about: About, saying: Saying, *, replace: bool = False) -> Given:
        """Keep it. The same again changes nothing.

        Raises ``NotFound`` for a request, experiment or unit that nobody saw, ``Conflict`` where the author said
        something else before and does not ``replace`` it; outcomes of experiments stay what they were at first.
        """
        author = storable(author)
        subject, trials = await self._find(team, about)
        row = saying.row()

        async def change(session: AsyncSession) -> tuple[FeedbackRecord, bool]:
            fresh = {"id": new_id("fb"), "at": now(), "team": team, "subject": subject, "author": author, **row}
            await session.execute(insertion(session, FeedbackRecord).values(fresh).on_conflict_do_nothing())
            same = (FeedbackRecord.team == team, FeedbackRecord.subject == subject, FeedbackRecord.author == author)
            found = (await session.scalars(select(FeedbackRecord).where(*same).with_for_update())).one()
            if found.id == fresh["id"]:
                return found, False
            if all(getattr(found, name) == value for name, value in row.items()):
                return found, True
            if not replace:
                raise Conflict(
                    f"{author!r} said something else of this before ({found.id}); send replace: true to change it.",
                    code="feedback_given",
                )
            for name, value in row.items():
                setattr(found, name, value)
            found.at = now()
            return found, False

        record, repeated = await (await self._store()).write(change)
        counted = [name for trial in trials if (name := await self._count(team, trial, saying.outcomes))]
        return Given(record, repeated, tuple(counted))

    async def find(self, team: str, *, limit: int, request: str | None = None) -> list[FeedbackRecord]:
        """A team's feedback, newest first; that on one request, if named by its own id or its answer's."""
        query = select(FeedbackRecord).where(FeedbackRecord.team == team)
        if request is not None:
            query = query.where(FeedbackRecord.subject == _subject(request_of(request)))
        async with (await self._store()).read() as session:
            return list(await session.scalars(query.order_by(FeedbackRecord.at.desc()).limit(limit)))

    async def corrections(self, team: str) -> list[tuple[FeedbackRecord, ContentRecord | None]]:
        """Feedback with a better answer, each with what was kept of the request, oldest first."""
        query = select(FeedbackRecord).where(FeedbackRecord.team == team, FeedbackRecord.correction.is_not(None))
        async with (await self._store()).read() as session:
            records = list(await session.scalars(query.order_by(FeedbackRecord.at)))
            return [(record, await _content(session, team, record.subject.partition(":")[2])) for record in records]

    async def content(self, team: str, request_id: str) -> ContentRecord | None:
        """What was said in a request, where ``log.content`` kept it."""
        await self._settle()
        async with (await self._store()).read() as session:
            return await _content(session, team, request_id)

    async def _find(self, team: str, about: About) -> tuple[str, Sequence[Trial]]:
        """The subject as it is kept, and what experiments know of it."""
        await self._settle()
        for last in (False, True):
            found = await (self._unit(team, about) if about.request is None else self._request(team, about.request))
            if found is not None and (found[1] or last or not await self._may_follow(team, found[0])):
                return found
            if not last:
                await self._again()
        if about.request is None:
            raise NotFound(
                f"No answer went to the unit {(about.unit or '')[:100]!r} under this experiment.",
                code="unit_not_found",
                param="unit",
            )
        raise NotFound(
            f"There is no request {about.request[:128]!r} here; send the X-Request-Id header or the id of an answer.",
            code="request_not_found",
            param="request_id",
        )

    async def _unit(self, team: str, about: About) -> tuple[str, Sequence[Trial]] | None:
        experiment = await self._experiments.get(team, about.experiment or "")
        digest = experiment.assignment.digest(about.unit or "").hex()
        trials = _trials(await self._experiments.exposures(team, experiment=experiment.id, unit=digest))
        return (f"unit:{experiment.id}:{digest}", trials[:1]) if trials else None

    async def _request(self, team: str, reference: str) -> tuple[str, Sequence[Trial]] | None:
        request_id = request_of(reference)
        trials = _trials(await self._experiments.exposures(team, request=request_id))
        return (_subject(request_id), trials) if trials or await self._known(team, request_id) is not None else None

    async def _known(self, team: str, request_id: str) -> datetime | None:
        query = select(UsageRecord.at).where(UsageRecord.request_id == request_id, UsageRecord.team == team).limit(1)
        async with (await self._store()).read() as session:
            return await session.scalar(query)

    async def _may_follow(self, team: str, subject: str) -> bool:
        """Whether another process may still be about to write that the request was part of an experiment."""
        at = await self._known(team, subject.partition(":")[2])
        if at is None or (now() - at).total_seconds() > _HELD_SECONDS:
            return False
        return bool(await self._experiments.find(team, state="running"))

    async def _count(self, team: str, trial: Trial, outcomes: Mapping[str, float]) -> str | None:
        experiment: Experiment = await self._experiments.get(team, trial.experiment)
        rows = outcome_rows(trial, experiment.design.metrics, outcomes, now())
        if not rows:
            return None
        await self._experiments.enter([], rows)
        return experiment.name


def _trials(exposures: Sequence[ExposureRecord]) -> list[Trial]:
    return [Trial(each.experiment_id, each.team, each.unit, each.variant, each.slice) for each in exposures]


def _subject(request_id: str) -> str:
    return f"request:{request_id}"


async def _content(session: AsyncSession, team: str, request_id: str) -> ContentRecord | None:
    query = select(ContentRecord).where(ContentRecord.request_id == request_id, ContentRecord.team == team)
    found: ContentRecord | None = await session.scalar(query.order_by(ContentRecord.id.desc()).limit(1))
    return found


def feedback_json(record: FeedbackRecord) -> dict[str, Any]:
    """Feedback as the API tells it."""
    kind, _, name = record.subject.partition(":")
    return {
        "object": "feedback",
        "id": record.id,
        "at": record.at.isoformat(),
        "request_id": name if kind == "request" else None,
        "experiment_id": name.partition(":")[0] if kind == "unit" else None,
        "author": record.author,
        "thumb": record.thumb,
        "score": record.score,
        "text": record.text,
        "correction": record.correction,
        "metrics": record.metrics,
    }
