"""Search in a collection: by meaning (exact, cosine) and by words (BM25), fused, narrowed, diversified and reranked.

What is searched is made of the records and kept (``loaded``); after a change it is renewed by what is other. Not here:
how rankings become one (``ranking``), what a document is.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack

from pagoda.core.errors import InvalidRequest
from pagoda.core.ports import Inference
from pagoda.core.types import Call, Embed, Rerank
from pagoda.logic.retrieval.book import CollectionBook
from pagoda.logic.retrieval.collection import Collection, Passage
from pagoda.logic.retrieval.loaded import Loaded, empty, told_of
from pagoda.logic.retrieval.question import MODES, MOST_HITS, Mode, Refinement
from pagoda.logic.retrieval.ranking import Ranked, diversify

_CANDIDATES = 50  # that a reranker or the wish for diversity chooses from
_KEPT = 8  # collections in memory; the one that was used longest ago leaves
_QUESTION_CHARACTERS = 1000  # of the end of a question, that are embedded: more than the model would take helps nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A passage that was found."""

    passage: Passage
    score: float
    """What it was ranked by: the fused score, the cosine or the words' (``mode``), or the reranker's. Only comparable
    within one search; where diversity is wanted, the order is not by it alone."""
    similarity: float | None
    """Cosine of question and passage; ``None`` where only words were compared."""

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {**self.passage.to_json(), "score": self.score, "similarity": self.similarity}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search gave."""

    hits: list[Hit]
    """Best first."""
    model: str
    """That embeds the collection."""
    question: bytes | None = None
    """The question's vector (little-endian float32); ``None`` where nothing could be found or words alone counted."""


class How(TypedDict, total=False):
    """What a search may be told beside its question."""

    limit: int
    mode: Mode
    refinement: Refinement


_PLAIN = Refinement()


class Searcher:
    """Searches collections through one door."""

    def __init__(self, book: CollectionBook, inference: Callable[[], Inference]) -> None:
        self.book = book
        self._inference = inference
        self._loaded: OrderedDict[tuple[str, str], Loaded] = OrderedDict()
        self._loading: dict[tuple[str, str], asyncio.Lock] = {}

    async def search(self, name: str, query: str, call: Call, **how: Unpack[How]) -> list[Hit]:
        """The hits of ``find`` alone. Raises as it does."""
        return (await self.find(name, query, call, **how)).hits

    async def find(
        self,
        name: str,
        query: str,
        call: Call,
        *,
        limit: int = 5,
        mode: Mode = "fused",
        refinement: Refinement = _PLAIN,
    ) -> Found:
        """The best passages of a collection of the call's team that the call's key may see.

        Raises ``InvalidRequest``, ``NotFound`` for the collection, and what the door raises.
        """
        _check(query, limit, mode, refinement)
        collection = await self.book.get(call.tenant, name)
        loaded = await self._load(call.tenant, name, collection)
        allowed = await asyncio.to_thread(loaded.fields.allowed, call.key_id, refinement)
        if not loaded.held or (allowed is not None and not allowed.spans):
            return Found(hits=[], model=collection.plan.model)
        question = None
        if mode != "lexical":
            request = Embed(model=collection.plan.model, inputs=(query[-_QUESTION_CHARACTERS:],), kind="query")
            question = (await self._inference().embed(request, call)).vectors[0]
            call = replace(call, parent=call.request_id)  # the search has been counted as a request
        plain = refinement.reranker is None and refinement.diversity == 0
        most = limit if plain else max(limit, _CANDIDATES)
        ranked, similarities = await asyncio.to_thread(
            loaded.ranked, query, question, most, allowed, words=mode != "dense"
        )
        if refinement.reranker is not None:
            ranked = await self._reranked(refinement.reranker, query, ranked, loaded, call)
        if refinement.diversity > 0:
            ranked = diversify(ranked, loaded.vectors, refinement.diversity, limit)
        hits = [
            Hit(
                passage=loaded.held[place].passage,
                score=score,
                similarity=None if similarities is None else float(similarities[place]),
            )
            for place, score in ranked[:limit]
        ]
        return Found(hits=hits, model=collection.plan.model, question=question)

    async def _reranked(self, model: str, query: str, ranked: Ranked, loaded: Loaded, call: Call) -> Ranked:
        if not ranked:
            return ranked
        documents = tuple(told_of(loaded.held[place].passage) for place, _ in ranked)
        ranking = await self._inference().rerank(Rerank(model=model, query=query, documents=documents), call)
        again = [(place, score) for (place, _), score in zip(ranked, ranking.scores, strict=True)]
        return sorted(again, key=lambda item: -item[1])

    async def _load(self, tenant: str, name: str, wanted: Collection) -> Loaded:
        """The collection as it is, or as it was a moment before it was ``wanted`` by others."""
        which = (tenant, name)
        async with self._loading.setdefault(which, asyncio.Lock()):
            held = self._loaded.get(which)
            if held is None or held.collection != wanted.id or held.revision != wanted.revision:
                known = held if held is not None and held.collection == wanted.id and not held.words.worn else empty()
                changes = await self.book.changes(tenant, name, known.documents)
                held = await asyncio.to_thread(known.renewed, *changes)
                self._loaded[which] = held
            self._loaded.move_to_end(which)
            while len(self._loaded) > _KEPT:
                self._loaded.popitem(last=False)
            return held


def _check(query: str, limit: int, mode: Mode, refinement: Refinement) -> None:
    if not query.strip():
        raise InvalidRequest("The question is empty.", param="query")
    if not 1 <= limit <= MOST_HITS or mode not in MODES:
        raise InvalidRequest(f"A search gives 1 to {MOST_HITS} hits, by one of: {', '.join(MODES)}.")
    if not 0 <= refinement.diversity <= 1:
        raise InvalidRequest("Diversity is from 0 to 1.", param="diversity")
