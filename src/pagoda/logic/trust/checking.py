"""Fact checking as a step of its own: claims in, a verdict and exact evidence for each out.

The sources are given texts, or what a collection holds near each claim. Not here: how sure one may be of an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import Call
from pagoda.logic.retrieval.collection import Passage
from pagoda.logic.trust.claims import MOST_CLAIMS, Claim, split_claims
from pagoda.logic.trust.evidence import Library
from pagoda.logic.trust.judging import Judge, Judgement
from pagoda.logic.trust.subject import Source

if TYPE_CHECKING:
    from pagoda.logic.retrieval.index import Searcher

PASSAGES = 5
"""Of a collection, that are looked at for each claim."""

MOST_CHARACTERS = 4000
"""Of a claim that is judged: each of its words is looked up with those around it."""

_IDLE = "it claims nothing that sources could bear out"
_LONG = f"it has more than {MOST_CHARACTERS} characters without an end of a sentence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A claim and what the sources say to it."""

    claim: Claim
    judgement: Judgement

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        place = {"claim": self.claim.text, "start": self.claim.start, "end": self.claim.end}
        return {**place, **self.judgement.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """The claims of a text, checked."""

    claims: tuple[Checked, ...] = ()
    cut: int | None = None
    """The character from which on nothing was looked at, for there were too many claims; ``None``: all was."""

    @property
    def supported(self) -> bool | None:
        """Whether the sources bear all claims out; ``None``: none says otherwise, but not all could be judged."""
        said = [each.judgement.verdict for each in self.claims if each.claim.checkable]
        if any(verdict in ("contradicted", "not_found") for verdict in said):
            return False
        return None if not said or None in said or self.cut is not None else True

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {"supported": self.supported, "claims": [each.to_json() for each in self.claims], "cut": self.cut}


class Checker:
    """Checks the claims of texts. ``searcher`` finds passages in collections."""

    def __init__(self, searcher: Callable[[], Searcher]) -> None:
        self._searcher = searcher

    async def check(
        self, text: str, sources: Sequence[Source], judge: Judge, call: Call, *, question: str = ""
    ) -> Checks:
        """All claims of a text against given sources. Raises ``InvalidRequest`` where there is nothing to check."""
        claims = await asyncio.to_thread(split_claims, text, MOST_CLAIMS + 1)
        if not claims:
            raise InvalidRequest("There is no claim in the text; give a sentence that says something.", param="claims")
        cut = claims[MOST_CLAIMS].start if len(claims) > MOST_CLAIMS else None
        del claims[MOST_CLAIMS:]
        library = await asyncio.to_thread(Library, sources)
        if not library.sentences:
            raise InvalidRequest("The sources are empty; give a text that claims can be held against.", param="sources")
        beside = [_unjudged(claim) for claim in claims]
        telling = [claim.text for claim, why in zip(claims, beside, strict=True) if why is None]
        judged = iter(await judge.judge(telling, question, library, call))
        checked = [
            Checked(claim=claim, judgement=why or next(judged)) for claim, why in zip(claims, beside, strict=True)
        ]
        return Checks(claims=tuple(checked), cut=cut)

    async def check_in(self, text: str, collection: str, judge: Judge, call: Call, *, question: str = "") -> Checks:
        """All claims of a text against a collection of the call's team. Raises ``NotFound`` for the collection."""
        sources = await self.find(collection, "", text, call)
        return await self.check(text, sources, judge, call, question=question)

    async def find(self, collection: str, question: str, text: str, call: Call) -> tuple[Source, ...]:
        """The passages of a collection near a question or a claim of a text, by documents and places."""
        claims = await asyncio.to_thread(split_claims, text)
        queries = [question, *(claim.text for claim in claims if claim.checkable)]
        searcher, found = self._searcher(), dict[tuple[str, int], Passage]()
        for query in queries:
            if query.strip():
                for hit in await searcher.search(collection, query, call, limit=PASSAGES):
                    found.setdefault((hit.passage.document, hit.passage.start), hit.passage)
                call = replace(call, parent=call.request_id)  # one request, however many claims
        return merge(list(found.values()))


def _unjudged(claim: Claim) -> Judgement | None:
    """Why a claim is not put to the judge; ``None`` if it is."""
    if claim.checkable and len(claim.text) <= MOST_CHARACTERS:
        return None
    return Judgement(verdict=None, supported=None, reason=_LONG if claim.checkable else _IDLE)


def merge(passages: Sequence[Passage]) -> tuple[Source, ...]:
    """Passages as sources, by documents and places; those that overlap or follow one another in a document are one."""
    merged: list[Source] = []
    for each in sorted(passages, key=lambda each: (each.source, each.document, each.start)):
        last = merged[-1] if merged else None
        if last is not None and last.document == each.document and each.start <= last.start + len(last.text):
            text = last.text + each.text[max(0, last.start + len(last.text) - each.start) :]
            merged[-1] = Source(name=last.name, text=text, start=last.start, document=last.document)
        else:
            merged.append(Source(name=each.source, text=each.text, start=each.start, document=each.document))
    return tuple(merged)
