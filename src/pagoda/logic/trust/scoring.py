"""An answer looked at from all sides: its families of signals, its claims, what is wrong, and how sure it is.

Kinds of hallucination: *factual* (a claim that the sources contradict, or do not bear out), *logical* (a sum that does
not come out), *consistency* (it contradicts itself, or what was said before). Findings carry their place in the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from pagoda.core.errors import InvalidRequest
from pagoda.core.ports import Inference
from pagoda.core.types import Call
from pagoda.logic.trust.arithmetic import Slip, recompute
from pagoda.logic.trust.calibration import log_odds
from pagoda.logic.trust.checking import Checked, Checker, Checks
from pagoda.logic.trust.combination import Confidence, combine
from pagoda.logic.trust.consistency import consistency
from pagoda.logic.trust.contradictions import Contradiction, contradictions
from pagoda.logic.trust.judging import Judge
from pagoda.logic.trust.likelihood import likelihood
from pagoda.logic.trust.subject import FAMILIES, Family, Signal, Subject, unavailable
from pagoda.logic.trust.tasks import at_once

Kind: TypeAlias = Literal["factual", "logical", "consistency"]

_NEARNESS = ("near_question", "ordered_pairs")
"""Of a claim's evidence: whether it answers the question, and in the source's words, which a verdict does not tell."""
_NOT_WANTED = "it was not asked for"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong with an answer: its characters from ``start`` up to ``end``."""

    kind: Kind
    start: int
    end: int
    text: str
    says: str
    """What is wrong with it, in a sentence."""

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustReport:
    """What is known of an answer."""

    confidence: Confidence
    signals: tuple[Signal, ...]
    checks: Checks
    findings: tuple[Finding, ...]
    judge: str
    """Who judged the claims."""
    sums: int
    """How many sums were recomputed."""

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            **self.confidence.to_json(),
            "signals": {signal.family: signal.to_json() for signal in self.signals},
            "claims": [checked.to_json() for checked in self.checks.claims],
            "cut": self.checks.cut,
            "findings": [finding.to_json() for finding in self.findings],
            "judge": self.judge,
            "sums_checked": self.sums,
        }


class TrustScorer:
    """Scores answers through one door; ``meaning`` is the embedding model that compares samples."""

    def __init__(self, checker: Checker, inference: Callable[[], Inference], meaning: str) -> None:
        self._checker = checker
        self._inference = inference
        self._meaning = meaning

    async def score(
        self, subject: Subject, judge: Judge, call: Call, families: Collection[Family] = FAMILIES
    ) -> TrustReport:
        """All that is known of an answer. A family that cannot be had is told as such; raises for an empty answer."""
        if not subject.answer.strip():
            raise InvalidRequest("The answer is empty.", param="answer")
        against = await asyncio.to_thread(contradictions, subject.answer, subject.earlier)
        async with at_once() as group:
            told = group.create_task(self._likelihood(subject, call, "token_probability" in families))
            agreed = group.create_task(self._consistency(subject, len(against), call, "consistency" in families))
            factual = group.create_task(self._factuality(subject, judge, call, "factuality" in families))
        slips, sums = await asyncio.to_thread(recompute, subject.answer)
        signal, checks = factual.result()
        signals = (told.result(), agreed.result(), signal)
        findings = [*_factual(checks.claims), *_logical(slips), *_inconsistent(against)]
        return TrustReport(
            confidence=await asyncio.to_thread(combine, subject, signals),
            signals=signals,
            checks=checks,
            findings=tuple(sorted(findings, key=_place)),
            judge=judge.name,
            sums=sums,
        )

    async def _likelihood(self, subject: Subject, call: Call, wanted: bool) -> Signal:
        if not wanted:
            return unavailable("token_probability", _NOT_WANTED)
        return await likelihood(subject, self._inference(), call)

    async def _consistency(self, subject: Subject, against: int, call: Call, wanted: bool) -> Signal:
        if not wanted:
            return unavailable("consistency", _NOT_WANTED)
        return await consistency(subject, against, self._inference(), call, self._meaning)

    async def _factuality(self, subject: Subject, judge: Judge, call: Call, wanted: bool) -> tuple[Signal, Checks]:
        if not wanted:
            return unavailable("factuality", _NOT_WANTED), Checks()
        if not subject.sourced:
            return unavailable("factuality", "there are no sources to hold its claims against"), Checks()
        try:
            checks = await self._checker.check(subject.answer, subject.sources, judge, call, question=subject.question)
        except InvalidRequest as error:
            return unavailable("factuality", error.message), Checks()
        return read_claims(checks.claims), checks


def read_claims(checked: Sequence[Checked]) -> Signal:
    """The signal in claims that were judged: the mean of their chances, the least, and how near their evidence is."""
    judged = [each.judgement for each in checked if each.judgement.supported is not None]
    chances = [judgement.supported for judgement in judged if judgement.supported is not None]
    if not chances:
        reasons = [each.judgement.reason for each in checked if each.judgement.reason]
        return unavailable("factuality", reasons[0] if reasons else "none of its claims could be judged")
    verdicts = [each.judgement.verdict for each in checked]
    return Signal(
        family="factuality",
        value=sum(chances) / len(chances),
        features={
            "mean_support": sum(chances) / len(chances),
            "least_support": min(chances),
            "least_odds": log_odds(min(chances)),
            **{name: sum(judgement.nearness[name] for judgement in judged) / len(judged) for name in _NEARNESS},
        },
        detail={
            "supported": verdicts.count("supported"),
            "contradicted": verdicts.count("contradicted"),
            "not_found": verdicts.count("not_found"),
            "not_judged": verdicts.count(None),
        },
    )


def _factual(claims: Sequence[Checked]) -> list[Finding]:
    says = {"contradicted": "The sources say otherwise.", "not_found": "No source says so."}
    return [
        Finding(
            kind="factual",
            start=each.claim.start,
            end=each.claim.end,
            text=each.claim.text,
            says=says[each.judgement.verdict],
        )
        for each in claims
        if each.judgement.verdict in says
    ]


def _logical(slips: Sequence[Slip]) -> list[Finding]:
    return [
        Finding(
            kind="logical",
            start=slip.start,
            end=slip.end,
            text=slip.said,
            says=f"It comes to {slip.value}.",
        )
        for slip in slips
    ]


def _inconsistent(against: Sequence[Contradiction]) -> list[Finding]:
    return [
        Finding(
            kind="consistency",
            start=each.claim.start,
            end=each.claim.end,
            text=each.claim.text,
            says=f"{'It says' if each.within else 'Earlier it said'} {each.other.text!r}: {each.why}.",
        )
        for each in against
    ]


def _place(finding: Finding) -> tuple[int, int]:
    return finding.start, finding.end
