"""Fact checking as a step of its own: claims in, a verdict and exact evidence for each out.

The sources are given texts, or what a collection holds near each claim. Not here: how sure one may be of an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import Call
from pagoda.logic.retrieval.collection import Passage
from pagoda.logic.trust.claims import Claim, split_claims
from pagoda.logic.trust.evidence import Library
from pagoda.logic.trust.judging import Judge, Judgement
from pagoda.logic.trust.subject import Source

if TYPE_CHECKING:
    from pagoda.logic.retrieval.index import Searcher

PASSAGES = 5
"""Of a collection, that are looked at for each claim."""

_IDLE = "it claims nothing that sources could bear out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A claim and what the sources say to it."""

    claim: Claim
    judgement: Judgement

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        place = {"claim": self.claim.text, "start": self.claim.start, "end": self.claim.end}
        return {**place, **self.judgement.to_json()}


class Checker:
    """Checks the claims of texts. ``searcher`` finds passages in collections."""

    def __init__(self, searcher: Callable[[], Searcher]) -> None:
        self._searcher = searcher

    async def check(
        self, text: str, sources: Sequence[Source], judge: Judge, call: Call, *, question: str = ""
    ) -> list[Checked]:
        """All claims of a text against given sources. Raises ``InvalidRequest`` where there is nothing to check."""
        claims = split_claims(text)
        if not claims:
            raise InvalidRequest("There is no claim in the text; give a sentence that says something.", param="claims")
        library = await asyncio.to_thread(Library, sources)
        if not library.sentences:
            raise InvalidRequest("The sources are empty; give a text that claims can be held against.", param="sources")
        telling = [claim for claim in claims if claim.checkable]
        judged = iter(await judge.judge([claim.text for claim in telling], question, library, call))
        idle = Judgement(verdict=None, supported=None, reason=_IDLE)
        return [Checked(claim=claim, judgement=next(judged) if claim.checkable else idle) for claim in claims]

    async def check_in(
        self, text: str, collection: str, judge: Judge, call: Call, *, question: str = ""
    ) -> list[Checked]:
        """All claims of a text against a collection of the call's team. Raises ``NotFound`` for the collection."""
        claims = split_claims(text)
        sources = await self.find(collection, [claim.text for claim in claims if claim.checkable], call)
        return await self.check(text, sources, judge, call, question=question)

    async def find(self, collection: str, queries: Sequence[str], call: Call) -> tuple[Source, ...]:
        """The passages of a collection near any of some texts, each once, in the order of their documents."""
        searcher, found = self._searcher(), dict[tuple[str, int], Passage]()
        for query in queries:
            for hit in await searcher.search(collection, query, call, limit=PASSAGES):
                found.setdefault((hit.passage.document, hit.passage.start), hit.passage)
        return merge(list(found.values()))


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
