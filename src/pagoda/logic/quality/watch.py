"""Who looks at answers as they leave: a share is scored, what looks wrong is queued for people, what must be is held.

Scoring and queueing happen off the request's path. An answer under a rule that may hold it is gathered whole before any
of it is shown; one that is held ends in ``SafetyError`` with the review's id. Other models' words on answers (judges,
guards) are not looked at, so that nothing triggers itself.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pagoda.core.errors import ConfigError, PagodaError, SafetyError
from pagoda.core.settings import Quality, Reviews
from pagoda.core.types import Call, Delta, Event, Finish, Generation, Started
from pagoda.logic.quality.rules import RULES, Exchange, last_words
from pagoda.service.telemetry import Telemetry

if TYPE_CHECKING:
    from pagoda.logic.reviews.book import Item, Review

logger = logging.getLogger(__name__)

_MOST_WAITING = 1000

Enter = Callable[["Item"], Awaitable["Review"]]
"""Puts an answer into the review queue."""

Judge = Callable[[Exchange, Call], Awaitable[float | None]]
"""A judging model's score of an answer in [0, 1]; ``None``: it could not judge."""


@dataclass(slots=True)
class _Heard:
    """An answer: the first choice of it, and the logarithms of its tokens' probabilities where they were asked for."""

    request: Generation
    call: Call
    model: str = ""
    text: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: str = ""
    scored: bool = False
    reasons: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        match event:
            case Started(model=model):
                self.model = model
            case Delta(0, text, logprobs):
                self.text.append(text)
                self.logprobs.extend(token.logprob for token in logprobs)
            case Finish(0, reason):
                self.finish = reason

    @property
    def answer(self) -> str:
        return "".join(self.text)

    @property
    def confidence(self) -> float | None:
        """The tokens' mean probability, by their logarithms' mean."""
        return math.exp(sum(self.logprobs) / len(self.logprobs)) if self.logprobs else None


class Watch:
    """``enter`` puts an answer into the review queue, ``judge`` asks a model for its score, if one is set."""

    def __init__(
        self, settings: tuple[Quality, Reviews], telemetry: Telemetry, enter: Enter, judge: Judge | None = None
    ) -> None:
        self._quality, self._reviews = settings
        self._telemetry = telemetry
        self._enter = enter
        self._judge = judge
        self._flags = _patterns(self._reviews.flag, "reviews.flag")
        self._holds = _patterns(self._reviews.hold, "reviews.hold")
        self._random = random.Random()
        self._waiting: asyncio.Queue[_Heard] = asyncio.Queue(_MOST_WAITING)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Score and queue from now on."""
        self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Finish what waits, but ask no judge any more."""
        self._judge = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        while not self._waiting.empty():
            await self._look(self._waiting.get_nowait())

    def heard(self, events: AsyncIterator[Event], request: Generation, call: Call) -> AsyncIterator[Event]:
        """The same events, looked at where settings ask for it."""
        if call.purpose != "answer":
            return events
        scored = self._random.random() < self._quality.share
        sampled = self._random.random() < self._reviews.sample
        if not (scored or sampled or self._holds or self._flags or self._reviews.confidence):
            return events
        heard = _Heard(request, call, scored=scored, reasons={"sample": {}} if sampled else {})
        return self._held(events, heard) if self._holds else self._passed(events, heard)

    async def _passed(self, events: AsyncIterator[Event], heard: _Heard) -> AsyncIterator[Event]:
        async with aclosing(events) as source:  # type: ignore[type-var]
            async for event in source:
                heard.take(event)
                yield event
        self._queue(heard)

    async def _held(self, events: AsyncIterator[Event], heard: _Heard) -> AsyncIterator[Event]:
        gathered: list[Event] = []
        texts: dict[int, str] = {}
        async with aclosing(events) as source:  # type: ignore[type-var]
            async for event in source:
                heard.take(event)
                gathered.append(event)
                if isinstance(event, Delta):
                    texts[event.index] = texts.get(event.index, "") + event.text + event.reasoning
        if found := next((rule for text in texts.values() if (rule := _found(self._holds, text))), None):
            heard.reasons["hold"] = {"rule": found}
            review = await self._enter(_item(heard, "hold", self._reviews.reviewers, held=True))
            raise SafetyError(
                f"This answer waits for a person's approval; ask GET /api/v1/reviews/{review.record.id}/answer for it.",
                code="held_for_review",
            )
        self._queue(heard)
        for event in gathered:
            yield event

    def _queue(self, heard: _Heard) -> None:
        try:
            self._waiting.put_nowait(heard)
        except asyncio.QueueFull:
            self._telemetry.quality_dropped.inc()

    async def _work(self) -> None:
        while True:
            await self._look(await self._waiting.get())

    async def _look(self, heard: _Heard) -> None:
        if rule := _found(self._flags, heard.answer):
            heard.reasons["safety"] = {"rule": rule}
        if (sure := heard.confidence) is not None and sure < self._reviews.confidence:
            heard.reasons["confidence"] = {"confidence": round(sure, 4)}
        try:
            if heard.scored:
                await self._score(heard)
            for reason in heard.reasons:
                await self._enter(_item(heard, reason, self._reviews.reviewers))
        except PagodaError as error:
            logger.warning("the answer to %s was not looked at: %s", heard.call.request_id, error.message)

    async def _score(self, heard: _Heard) -> None:
        exchange = Exchange(last_words(_asked(heard.request)), heard.answer, heard.finish)
        for name, rule in RULES.items():
            self._count(heard, name, float(rule(exchange)))
        if self._judge is None or self._random.random() >= self._quality.judge_share:
            return
        score = await self._judge(exchange, heard.call)
        if score is None:
            self._telemetry.quality_unjudged.labels(heard.model).inc()
        else:
            self._count(heard, "judge", score)

    def _count(self, heard: _Heard, rule: str, points: float) -> None:
        prompt, _, version = (heard.call.prompt or "").partition("@")
        labels = (heard.model, prompt, version, rule)
        self._telemetry.child(self._telemetry.quality_answers, *labels).inc()
        self._telemetry.child(self._telemetry.quality_points, *labels).inc(points)


def _item(heard: _Heard, reason: str, needed: int, *, held: bool = False) -> Item:
    from pagoda.logic.reviews.book import Item  # noqa: PLC0415  (it brings the database)

    return Item(
        team=heard.call.tenant,
        request_id=heard.call.request_id,
        reason=reason,  # type: ignore[arg-type]
        detail=heard.reasons[reason],
        held=held,
        needed=needed,
        model=heard.model,
        prompt_version=heard.call.prompt,
        prompt=_asked(heard.request),
        answer=heard.answer,
    )


def _asked(request: Generation) -> dict[str, Any]:
    """What was asked, as reviews keep it."""
    if request.messages is not None:
        return {"messages": [dict(message) for message in request.messages]}
    return {"text": request.prompt if isinstance(request.prompt, str) else str(list(request.prompt or ()))}


def _found(patterns: Sequence[re.Pattern[str]], text: str) -> str | None:
    return next((pattern.pattern for pattern in patterns if pattern.search(text)), None)


def _patterns(given: Sequence[str], setting: str) -> tuple[re.Pattern[str], ...]:
    """Raises ``ConfigError`` for what is no regular expression."""
    try:
        return tuple(re.compile(each, re.IGNORECASE) for each in given)
    except re.error as error:
        raise ConfigError([f"{setting} must hold regular expressions: {error}"]) from error
