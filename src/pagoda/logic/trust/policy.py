"""What becomes of an answer that is not sure enough: kept, asked of a better model, withheld, or sent to people.

An answer that could not be judged counts as below the bar: not to know is no reason to trust.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from pagoda.core.errors import InvalidRequest
from pagoda.core.ports import Inference
from pagoda.core.types import Call, Generation
from pagoda.logic.inference.answer import collect
from pagoda.logic.prompts.asking import ask
from pagoda.logic.prompts.composing import Composer, Use
from pagoda.logic.prompts.library import packaged
from pagoda.logic.trust.scoring import TrustReport
from pagoda.logic.trust.subject import Action, Subject

Score: TypeAlias = Callable[[Subject], Awaitable[TrustReport]]
"""Looks at an answer."""
Queue: TypeAlias = Callable[[Subject, TrustReport], Awaitable[str]]
"""Puts an answer into the review queue; gives the review's id."""

_ABSTAINED = {
    "en": "I am not sure enough of an answer to give one.",
    "zh": "我对答案没有足够的把握，因此不作回答。",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The bar, and what is done below it."""

    threshold: float = 0.5
    action: Action = "keep"
    model: str = ""
    """Who is asked instead, for ``ask``."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise InvalidRequest("A threshold of confidence lies between 0 and 1.", param="threshold")
        if (self.action == "ask") != bool(self.model):
            raise InvalidRequest("The action ask, and no other, names the model to ask instead.", param="model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an answer."""

    action: Action
    """What was done; ``keep`` where the answer is above the bar."""
    sure: bool
    """Whether the answer that is given now is above the bar."""
    answer: str
    model: str
    report: TrustReport
    """Of the answer that was looked at last."""
    review: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For machines, without the report."""
        told = {"action": self.action, "sure": self.sure, "answer": self.answer, "model": self.model or None}
        return {**told, "review": self.review}


def is_sure(report: TrustReport, policy: Policy) -> bool:
    """Whether an answer is above the bar. One with a sum that is wrong, or that contradicts itself, never is."""
    if any(finding.kind != "factual" for finding in report.findings):
        return False
    return report.confidence.value is not None and report.confidence.value >= policy.threshold


class Steward:
    """Carries a policy out."""

    def __init__(self, inference: Callable[[], Inference], queue: Queue) -> None:
        self._inference = inference
        self._queue = queue

    async def carry_out(
        self, policy: Policy, subject: Subject, report: TrustReport, score: Score, call: Call
    ) -> Outcome:
        """What becomes of an answer. A better model's answer is looked at too, and given whatever its confidence."""
        kept = Outcome(
            action="keep", sure=is_sure(report, policy), answer=subject.answer, model=subject.model, report=report
        )
        if kept.sure or policy.action == "keep":
            return kept
        if policy.action == "abstain":
            return replace(kept, action="abstain", answer=_ABSTAINED[subject.language], model="")
        if policy.action == "review":
            return replace(kept, action="review", review=await self._queue(subject, report))
        other = replace(subject, answer=await self._ask(policy.model, subject, call), model=policy.model, logprobs=None)
        again = await score(other)
        sure = is_sure(again, policy)
        return Outcome(action="ask", sure=sure, answer=other.answer, model=other.model, report=again)

    async def _ask(self, model: str, subject: Subject, call: Call) -> str:
        """What another model answers to the question, from the same sources where there are any."""
        door, context = self._inference(), "\n\n".join(source.text.strip() for source in subject.sources)
        if not context:
            plain = Generation(model=model, messages=({"role": "user", "content": subject.question},))
            return (await collect(door, plain, call)).text.strip()
        values = {"question": subject.question, "context": context}
        use = Use(version=packaged("answer"), values=values, model=model, language=subject.language)
        return (await ask(await Composer(door, "").compose(use, call, count=False), door, call)).text.strip()
