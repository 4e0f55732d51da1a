"""The second look at each claim: does a source bear it out, say otherwise, or not speak of it?

Two judges of one form. The local one is a pair of logistic regressions on the numbers of ``evidence``: quick, offline,
in English and Chinese; it goes by words, so that a free paraphrase looks to it like nothing found. The other is any
served model, asked with a prompt. A judge that cannot tell says so: the verdict is ``None``, with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, Protocol, TypeAlias

from pagoda.core.errors import InvalidRequest, ModelError
from pagoda.core.ports import Inference
from pagoda.core.types import Call
from pagoda.logic.prompts.asking import ask
from pagoda.logic.prompts.composing import Composer, Use
from pagoda.logic.trust.calibration import Logistic, logistic_from, sigmoid
from pagoda.logic.trust.evidence import Evidence, Library, Span
from pagoda.logic.trust.prompts import trust_prompt
from pagoda.logic.trust.subject import language_of
from pagoda.logic.trust.tasks import at_once
from pagoda.logic.trust.weights import read_weights

Verdict: TypeAlias = Literal["supported", "contradicted", "not_found"]

_AT_ONCE = 4
_SAID: Mapping[str, Verdict] = {
    "SUPPORTED": "supported",
    "CONTRADICTED": "contradicted",
    "NOT_FOUND": "not_found",
}
_MOST_REASON = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a judge says of a claim."""

    verdict: Verdict | None
    """``None``: it could not judge."""
    supported: float | None
    """Probability that the sources bear it out; of a served judge 0, 0.5 or 1."""
    spans: tuple[Span, ...] = ()
    """Where in the sources it looked; of "not found" what came nearest."""
    reason: str = ""
    nearness: Mapping[str, float] = field(default_factory=dict)
    """The numbers of its evidence (``evidence.FEATURES``)."""

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "verdict": self.verdict or "could_not_judge",
            "supported": self.supported,
            "evidence": [span.to_json() for span in self.spans],
            "reason": self.reason or None,
        }


class Judge(Protocol):
    """Says of each claim whether the sources of a library bear it out."""

    @property
    def name(self) -> str:
        """What it is called in reports."""
        ...

    async def judge(self, claims: Sequence[str], question: str, library: Library, call: Call) -> list[Judgement]:
        """A judgement for each claim, in their order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWeights:
    """The regressions of the local judge: whether a claim is supported, and if not, whether it is contradicted."""

    supported: Logistic
    contradicted: Logistic


@cache
def local_weights() -> LocalWeights:
    """Those that come with Pagoda."""
    kept = read_weights("judge")
    return LocalWeights(supported=logistic_from(kept["supported"]), contradicted=logistic_from(kept["contradicted"]))


@dataclass(frozen=True, slots=True)
class LocalJudge:
    """The judge that needs no model."""

    weights: LocalWeights
    name: str = "local"

    async def judge(self, claims: Sequence[str], question: str, library: Library, call: Call) -> list[Judgement]:
        """Off the event loop: a long text takes a while."""
        del call
        return await asyncio.to_thread(lambda: [self.read(library.look_up(claim, question)) for claim in claims])

    def read(self, evidence: Evidence) -> Judgement:
        """The judgement that the numbers of a claim's evidence give."""
        supported = sigmoid(self.weights.supported.logit(evidence.features))
        if supported >= 0.5:
            verdict: Verdict = "supported"
        elif not evidence.spans:
            verdict = "not_found"
        else:
            contradicted = self.weights.contradicted.probability(evidence.features)
            verdict = "contradicted" if contradicted >= 0.5 else "not_found"
        return Judgement(verdict=verdict, supported=supported, spans=evidence.spans, nearness=evidence.features)


@dataclass(frozen=True, slots=True)
class ServedJudge:
    """A served model as judge, asked about each claim with the sentences that come nearest to it."""

    door: Inference
    model: str

    @property
    def name(self) -> str:
        """By its model."""
        return self.model

    async def judge(self, claims: Sequence[str], question: str, library: Library, call: Call) -> list[Judgement]:
        """A few claims at once. What the model does not answer readably could not be judged."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(claim: str) -> Judgement:
            async with gate:
                return await self._ask(claim, question, library, call)

        async with at_once() as group:
            asked = [group.create_task(one(claim)) for claim in claims]
        return [task.result() for task in asked]

    async def _ask(self, claim: str, question: str, library: Library, call: Call) -> Judgement:
        evidence = await asyncio.to_thread(library.look_up, claim, question)
        if not evidence.spans:
            reason = "no source shares a word with it"
            return Judgement(verdict="not_found", supported=0.0, reason=reason, nearness=evidence.features)
        text = "\n".join(library.around(evidence.spans))
        values = {"claim": claim, "text": text} | ({"question": question} if question else {})
        use = Use(version=trust_prompt("claim"), values=values, model=self.model, language=language_of(claim))
        asked = replace(call, purpose="judge", parent=call.request_id)
        try:
            said = await ask(await Composer(self.door, "").compose(use, asked, count=False), self.door, asked)
        except (InvalidRequest, ModelError) as error:
            return Judgement(verdict=None, supported=None, spans=evidence.spans, reason=error.message)
        reason = said.text.strip()[:_MOST_REASON]
        verdict = _SAID.get(said.answer or "")
        if verdict is None:
            return Judgement(verdict=None, supported=None, spans=evidence.spans, reason=f"the judge said: {reason}")
        supported = {"supported": 1.0, "contradicted": 0.0, "not_found": 0.0}[verdict]
        return Judgement(
            verdict=verdict, supported=supported, spans=evidence.spans, reason=reason, nearness=evidence.features
        )
