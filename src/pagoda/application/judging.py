"""A judging model put beside what people decided: it is asked about reviews, and its words are kept with theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from pagoda.application.client import home_door
from pagoda.application.keeping import with_records
from pagoda.core.settings import Settings
from pagoda.core.types import Call
from pagoda.logic.inference.joined import JoinedDoor
from pagoda.logic.quality.judging import ModelJudge
from pagoda.logic.quality.rules import Exchange, last_words
from pagoda.logic.reviews.book import Review, ReviewBook
from pagoda.logic.reviews.standing import Standing, standing

_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Panel:
    """Whose reviews are judged, by which model and what criteria, and how many at most."""

    team: str
    model: str
    criteria: str
    limit: int

    @property
    def judge(self) -> str:
        """The judge's name among reviewers."""
        return f"judge:{self.model}"


async def judge_reviews(settings: Settings, environment: Mapping[str, str], panel: Panel) -> tuple[int, Standing]:
    """Ask the judge about decided reviews that it has not seen; how many those were, and how all agree now."""
    async with home_door(settings, environment) as door:
        return await with_records(settings, lambda opened: _judge(ReviewBook(opened), door, panel))


async def _judge(book: ReviewBook, door: JoinedDoor, panel: Panel) -> tuple[int, Standing]:
    judge = ModelJudge(lambda: door, panel.model, panel.criteria)
    turns = asyncio.Semaphore(_AT_ONCE)

    async def ask(review: Review) -> None:
        record = review.record
        async with turns:
            exchange = Exchange(last_words(record.prompt or {}), record.answer or "", "stop")
            said = await judge.score(exchange, Call(tenant=panel.team, request_id=record.request_id))
        decision = "unsure" if said.passed is None else "approve" if said.passed else "reject"
        await book.note_judge(panel.team, record.id, panel.judge, decision, said.value, said.reason)

    open_ = [
        review
        for review in await book.judged(panel.team)
        if review.record.state != "waiting"
        and review.record.answer is not None
        and all(each.reviewer != panel.judge for each in review.judgements)
    ][: panel.limit]
    await asyncio.gather(*(ask(review) for review in open_))
    return len(open_), standing(await book.judged(panel.team))
