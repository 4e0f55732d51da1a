"""The desk of trust: answers scored, claims checked, policies carried out, by the judge that is wanted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from pagoda.core.ports import Inference
from pagoda.core.types import Call
from pagoda.logic.trust.checking import Checker, Checks, merge
from pagoda.logic.trust.consistency import MEANING
from pagoda.logic.trust.judging import Judge, LocalJudge, ServedJudge, local_weights
from pagoda.logic.trust.policy import Outcome, Policy, Steward
from pagoda.logic.trust.scoring import TrustReport, TrustScorer
from pagoda.logic.trust.subject import FAMILIES, LOCAL, Family, Source, Subject

if TYPE_CHECKING:  # they bring the database, which not every service opens
    from pagoda.logic.retrieval.answering import SourcedAnswer
    from pagoda.logic.retrieval.index import Searcher
    from pagoda.logic.reviews.book import Item, Review

Enter: TypeAlias = "Callable[[Item], Awaitable[Review]]"
"""Puts an answer into the review queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How an answer is to be looked at, and what becomes of it."""

    judge: str = LOCAL
    """``local``, or a served model's id."""
    families: tuple[Family, ...] = FAMILIES
    policy: Policy = Policy()
    collection: str | None = None
    """Where sources are looked for that were not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """An answer that was looked at, and what became of it."""

    report: TrustReport
    """Of the answer as it was given."""
    outcome: Outcome

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        told = {**self.report.to_json(), "outcome": self.outcome.to_json()}
        if self.outcome.report is not self.report:
            told["outcome"]["confidence"] = self.outcome.report.confidence.value
        return told

    def answer_of(self, answer: SourcedAnswer) -> SourcedAnswer:
        """What is given in place of an answer from a collection: itself, where the policy left it as it was."""
        given = self.outcome
        return answer if given.answer == answer.text else answer.instead(given.answer, given.model or None)


class TrustDesk:
    """Looks at answers and claims, on behalf of one team a call."""

    def __init__(
        self,
        searcher: Callable[[], Searcher],
        inference: Callable[[], Inference],
        enter: Enter,
        *,
        meaning: str = MEANING,
        reviewers: int = 1,
    ) -> None:
        self._inference = inference
        self._checker = Checker(searcher)
        self._scorer = TrustScorer(self._checker, inference, meaning)
        self._enter = enter
        self._reviewers = reviewers

    async def score(self, subject: Subject, call: Call, wish: Wish | None = None) -> Scored:
        """How sure one may be of an answer, and what becomes of it. Raises what search, judge and door raise."""
        wanted = wish or Wish()
        if wanted.collection is not None:
            found = await self._checker.find(wanted.collection, subject.question, subject.answer, call)
            subject = replace(subject, sources=(*subject.sources, *found))
        judge = self._judge(wanted.judge)

        async def look(again: Subject) -> TrustReport:
            return await self._scorer.score(again, judge, call, wanted.families)

        async def queue(doubted: Subject, report: TrustReport) -> str:
            return await self._queue(doubted, report, call)

        report = await look(subject)
        steward = Steward(self._inference, queue)
        return Scored(report=report, outcome=await steward.carry_out(wanted.policy, subject, report, look, call))

    async def score_sourced(self, question: str, answer: SourcedAnswer, call: Call, policy: Policy) -> Scored:
        """``score`` for an answer from a collection, held against the passages that its model was shown."""
        subject = Subject(
            question=question,
            answer=answer.text,
            sources=merge([hit.passage for hit in answer.passages]),
            model=answer.model or "",
        )
        return await self.score(subject, call, Wish(policy=policy))

    async def check(
        self, text: str, sources: Sequence[Source], call: Call, *, question: str = "", judge: str = LOCAL
    ) -> Checks:
        """A verdict on each claim of a text against given sources."""
        return await self._checker.check(text, sources, self._judge(judge), call, question=question)

    async def check_in(
        self, text: str, collection: str, call: Call, *, question: str = "", judge: str = LOCAL
    ) -> Checks:
        """A verdict on each claim of a text against a collection of the call's team."""
        return await self._checker.check_in(text, collection, self._judge(judge), call, question=question)

    def _judge(self, name: str) -> Judge:
        return LocalJudge(local_weights()) if name == LOCAL else ServedJudge(self._inference(), name)

    async def _queue(self, subject: Subject, report: TrustReport, call: Call) -> str:
        from pagoda.logic.reviews.book import Item  # noqa: PLC0415  (it brings the database)

        item = Item(
            team=call.tenant,
            request_id=call.request_id,
            reason="confidence",
            detail={
                "confidence": report.confidence.value,
                "findings": [finding.to_json() for finding in report.findings],
            },
            needed=self._reviewers,
            model=subject.model,
            prompt={"messages": [{"role": "user", "content": subject.question}]},
            answer=subject.answer,
        )
        return (await self._enter(item)).record.id
