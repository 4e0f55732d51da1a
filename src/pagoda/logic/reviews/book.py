"""The queue as it is kept: an answer enters once, people claim it for a while, and as many as are needed decide.

Not here: why answers enter by themselves (``logic.quality``), and how far people agree (``agreement``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from pagoda.core.errors import Conflict, InvalidRequest, NotFound
from pagoda.core.runs.record import now
from pagoda.core.storage.review_records import JudgementRecord, ReviewRecord
from pagoda.core.storage.store import Store
from pagoda.core.storage.text import storable
from pagoda.core.storage.upsert import insertion
from pagoda.core.types import Json, new_id
from pagoda.logic.reviews.words import Decision, Reason, State

_STATES: Mapping[str, State] = {"approve": "approved", "edit": "edited", "reject": "rejected"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An answer to be looked at, and why."""

    team: str
    request_id: str
    reason: Reason
    detail: Mapping[str, Json]
    """What is known about the reason."""
    held: bool = False
    needed: int = 1
    model: str = ""
    prompt_version: str | None = None
    prompt: Mapping[str, Json] | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """A review at the moment it was read."""

    record: ReviewRecord
    judgements: tuple[JudgementRecord, ...]

    @property
    def final(self) -> str | None:
        """The answer as people left it; ``None`` where they rejected it or have not decided."""
        if self.record.state == "approved":
            return self.record.answer
        edits = [each.edited for each in self.judgements if each.decision == "edit" and not each.judge]
        return edits[-1] if self.record.state == "edited" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What somebody decides. Raises ``InvalidRequest`` for an edit without text or a rejection without reason."""

    decision: Decision
    reason: str | None = None
    edited: str | None = None

    def __post_init__(self) -> None:
        if (self.decision == "edit") != (self.edited is not None):
            raise InvalidRequest("An edit, and nothing else, brings the edited answer along.", param="edited")
        if self.decision == "reject" and not self.reason:
            raise InvalidRequest("Say why it is rejected.", param="reason")


class ReviewBook:
    """The reviews of this home or database. ``store`` gives the records, opened."""

    def __init__(self, store: Callable[[], Awaitable[Store]]) -> None:
        self._store = store

    async def enter(self, item: Item) -> Review:
        """Put an answer into the queue; one that is there already gets one more reason, and text if it had none."""

        async def change(session: AsyncSession) -> Review:
            await session.execute(insertion(session, ReviewRecord).values(_fresh(item)).on_conflict_do_nothing())
            same = (ReviewRecord.team == item.team, ReviewRecord.request_id == item.request_id)
            record = (await session.scalars(select(ReviewRecord).where(*same).with_for_update())).one()
            record.reasons = {**record.reasons, item.reason: storable(item.detail)}
            if record.answer is None or item.reason == "approval":  # which is of this text, whatever was said before
                record.prompt, record.answer = storable(item.prompt), storable(item.answer)
            return Review(record, tuple(await _judgements(session, record.id)))

        return await (await self._store()).write(change)

    async def find(
        self, team: str, *, state: str | None = None, reason: str | None = None, limit: int = 100
    ) -> list[Review]:
        """A team's reviews, oldest first: those who waited longest come first."""
        query = select(ReviewRecord).where(ReviewRecord.team == team)
        if state is not None:
            query = query.where(ReviewRecord.state == state)
        async with (await self._store()).read() as session:
            records = await session.scalars(query.order_by(ReviewRecord.created, ReviewRecord.id))
            chosen = [record for record in records if reason is None or reason in record.reasons][:limit]
            return await _reviews(session, chosen)

    async def get(self, team: str, review_id: str) -> Review:
        """A review. Raises ``NotFound``, for another team's too."""
        async with (await self._store()).read() as session:
            record = await _record(session, team, review_id)
            return Review(record, tuple(await _judgements(session, record.id)))

    async def claim(self, team: str, reviewer: str, seconds: float, review_id: str | None = None) -> Review | None:
        """Give somebody an item alone for a while: the named one, or the one that has waited longest; ``None``: none.

        An item that needs several people may be claimed by as many at once. Raises ``Conflict`` where the named one
        is claimed by others, decided, or judged by this reviewer already.
        """

        async def change(session: AsyncSession) -> Review | None:
            moment = now()
            waiting = select(ReviewRecord).where(ReviewRecord.team == team, ReviewRecord.state == "waiting")
            if review_id is not None:
                await _record(session, team, review_id)
                waiting = waiting.where(ReviewRecord.id == review_id)
            taken = _taken(reviewer, moment)
            free = waiting.where(taken < ReviewRecord.needed, ~_has_judged(reviewer))
            free = free.order_by(ReviewRecord.created, ReviewRecord.id).limit(1).with_for_update()
            passed: list[str] = []
            while (record := await session.scalar(free.where(ReviewRecord.id.not_in(passed)))) is not None:
                # Somebody may have claimed it between the look and the lock; now that it is locked nobody can.
                if await _others(session, record, reviewer, moment) < record.needed:
                    break
                passed.append(record.id)
            if record is None:
                if review_id is not None:
                    raise Conflict(
                        "This review is claimed by others, decided, or judged by you already; claim another one.",
                        code="review_taken",
                    )
                return None
            await _put(session, record, reviewer, moment, moment + timedelta(seconds=seconds))
            return Review(record, tuple(await _judgements(session, record.id)))

        return await (await self._store()).write(change)

    async def decide(self, team: str, review_id: str, reviewer: str, ruling: Ruling) -> Review:
        """Say what is to become of the answer. Where as many disagree as agree, one more person is asked.

        Raises ``Conflict`` where it is decided, judged by this reviewer already, or claimed by others only.
        """

        async def change(session: AsyncSession) -> Review:
            moment = now()
            record = await _record(session, team, review_id, lock=True)
            if ruling.decision == "edit" and "approval" in record.reasons:
                raise InvalidRequest("An agent's call is approved or rejected; it cannot be edited.", param="decision")
            if record.state != "waiting":
                raise Conflict(f"This review is decided: {record.state}.", code="review_decided")
            judgement = await _own(session, record.id, reviewer)
            if judgement is not None and judgement.decision is not None:
                raise Conflict("You have judged this review already.", code="review_judged")
            if judgement is None or judgement.until <= moment:
                if await _others(session, record, reviewer, moment) >= record.needed:
                    raise Conflict("Others have claimed this review; claim another one.", code="review_taken")
                judgement = await _put(session, record, reviewer, moment, moment)
            judgement.decision, judgement.at = ruling.decision, moment
            judgement.reason, judgement.edited = storable(ruling.reason), storable(ruling.edited)
            await session.flush()
            judgements = await _judgements(session, record.id)
            _settle(record, judgements, moment)
            return Review(record, tuple(judgements))

        return await (await self._store()).write(change)

    async def settle(self, team: str, request_id: str, reviewer: str, ruling: Ruling) -> None:
        """Note what was decided elsewhere, by whom: the review of that request, if one waits, ends so."""

        async def change(session: AsyncSession) -> None:
            same = (ReviewRecord.team == team, ReviewRecord.request_id == request_id, ReviewRecord.state == "waiting")
            record = await session.scalar(select(ReviewRecord).where(*same).with_for_update())
            if record is None:
                return
            judgement = await _put(session, record, reviewer, now(), now())
            judgement.decision, judgement.reason, judgement.at = ruling.decision, storable(ruling.reason), now()
            record.state, record.decided = _STATES[ruling.decision], now()

        await (await self._store()).write(change)

    async def note_judge(
        self, team: str, review_id: str, judge: str, decision: str, score: float | None, reason: str
    ) -> None:
        """Keep what a judging model says beside what people say; it decides nothing. The newest word stays."""

        async def change(session: AsyncSession) -> None:
            record = await _record(session, team, review_id)
            judgement = await _put(session, record, judge, now(), now(), judge=True)
            judgement.decision, judgement.score, judgement.at = decision, score, now()
            judgement.reason = storable(reason)

        await (await self._store()).write(change)

    async def judged(self, team: str) -> list[Review]:
        """All reviews of answers that anybody has judged, oldest first; an agent's call is no answer."""
        query = select(ReviewRecord).where(
            ReviewRecord.team == team,
            ReviewRecord.id.in_(select(JudgementRecord.review_id).where(JudgementRecord.decision.is_not(None))),
        )
        async with (await self._store()).read() as session:
            records = await session.scalars(query.order_by(ReviewRecord.created, ReviewRecord.id))
            return await _reviews(session, [record for record in records if "approval" not in record.reasons])


def _fresh(item: Item) -> dict[str, Any]:
    """The row of an item that is not in the queue yet, without its text and reason."""
    return {
        "id": new_id("rev"),
        "team": item.team,
        "request_id": item.request_id,
        "state": "waiting",
        "reasons": {},
        "held": item.held,
        "needed": item.needed,
        "model": item.model,
        "prompt_version": item.prompt_version,
        "created": now(),
    }


def _settle(record: ReviewRecord, judgements: Sequence[JudgementRecord], moment: datetime) -> None:
    said = Counter(each.decision for each in judgements if each.decision is not None and not each.judge)
    if sum(said.values()) < record.needed:
        return
    ranked = said.most_common()
    if len(ranked) > 1 and ranked[0][1] == ranked[1][1]:
        record.needed += 1
        return
    record.state, record.decided = _STATES[str(ranked[0][0])], moment


def _taken(reviewer: str, moment: datetime) -> Any:
    """How many others judge the review or have it claimed."""
    return (
        select(func.count())
        .select_from(JudgementRecord)
        .where(
            JudgementRecord.review_id == ReviewRecord.id,
            JudgementRecord.judge.is_(False),
            JudgementRecord.reviewer != reviewer,
            or_(JudgementRecord.decision.is_not(None), JudgementRecord.until > moment),
        )
        .correlate(ReviewRecord)
        .scalar_subquery()
    )


async def _others(session: AsyncSession, record: ReviewRecord, reviewer: str, moment: datetime) -> int:
    count = select(_taken(reviewer, moment)).where(ReviewRecord.id == record.id).select_from(ReviewRecord)
    return await session.scalar(count) or 0


def _has_judged(reviewer: str) -> Any:
    return (
        select(JudgementRecord.id)
        .where(
            JudgementRecord.review_id == ReviewRecord.id,
            JudgementRecord.reviewer == reviewer,
            JudgementRecord.decision.is_not(None),
        )
        .correlate(ReviewRecord)
        .exists()
    )


async def _own(session: AsyncSession, review_id: str, reviewer: str) -> JudgementRecord | None:
    query = select(JudgementRecord).where(JudgementRecord.review_id == review_id, JudgementRecord.reviewer == reviewer)
    found: JudgementRecord | None = await session.scalar(query)
    return found


async def _put(
    session: AsyncSession,
    record: ReviewRecord,
    reviewer: str,
    claimed: datetime,
    until: datetime,
    *,
    judge: bool = False,
) -> JudgementRecord:
    judgement = await _own(session, record.id, reviewer)
    if judgement is None:
        judgement = JudgementRecord(review_id=record.id, reviewer=reviewer, judge=judge, claimed=claimed, until=until)
        session.add(judgement)
    judgement.claimed, judgement.until = claimed, until
    await session.flush()
    return judgement


async def _judgements(session: AsyncSession, review_id: str) -> list[JudgementRecord]:
    query = select(JudgementRecord).where(JudgementRecord.review_id == review_id)
    return list(await session.scalars(query.order_by(JudgementRecord.at, JudgementRecord.id)))


async def _reviews(session: AsyncSession, records: Sequence[ReviewRecord]) -> list[Review]:
    query = select(JudgementRecord).where(JudgementRecord.review_id.in_([record.id for record in records]))
    found: dict[str, list[JudgementRecord]] = {record.id: [] for record in records}
    for judgement in await session.scalars(query.order_by(JudgementRecord.at, JudgementRecord.id)):
        found[judgement.review_id].append(judgement)
    return [Review(record, tuple(found[record.id])) for record in records]


async def _record(session: AsyncSession, team: str, review_id: str, *, lock: bool = False) -> ReviewRecord:
    query = select(ReviewRecord).where(ReviewRecord.team == team, ReviewRecord.id == review_id)
    found: ReviewRecord | None = await session.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise NotFound(f"There is no review {review_id[:100]!r}.", code="review_not_found")
    return found
