"""Search in a collection: by meaning (exact, cosine) and by words (BM25), fused by reciprocal rank.

What is searched is built from the records and kept until the collection changes. Cormack, Clarke and Buettcher,
"Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods", 2009.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pagoda.core.errors import InvalidRequest
from pagoda.core.ports import Inference
from pagoda.core.types import Call, Embed
from pagoda.logic.retrieval.book import CollectionBook
from pagoda.logic.retrieval.collection import Passage
from pagoda.logic.retrieval.lexical import LexicalIndex, best

Mode = Literal["fused", "dense", "lexical"]
MODES: tuple[Mode, ...] = ("fused", "dense", "lexical")

MOST_HITS = 100
_DEPTH = 50  # of each ranking, that fusion looks at
_RANK_CONSTANT = 60  # of the paper
_KEPT = 8  # collections in memory; the one that was used longest ago leaves
_QUESTION_CHARACTERS = 1000  # of the end of a question, that are embedded: more than the model would take helps nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A passage that was found."""

    passage: Passage
    score: float
    """By which hits are ordered; only comparable within one search."""
    similarity: float | None
    """Cosine of question and passage; ``None`` where only words were compared."""

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {**self.passage.to_json(), "score": self.score, "similarity": self.similarity}


@dataclass(frozen=True, slots=True)
class _Loaded:
    key: tuple[str, int]  # a collection's id and revision
    passages: list[Passage]
    vectors: NDArray[np.float32]
    words: LexicalIndex


class Searcher:
    """Searches collections through one door."""

    def __init__(self, book: CollectionBook, inference: Callable[[], Inference]) -> None:
        self._book = book
        self._inference = inference
        self._loaded: OrderedDict[tuple[str, str], _Loaded] = OrderedDict()
        self._loading: dict[tuple[str, str], asyncio.Lock] = {}

    async def search(self, name: str, query: str, call: Call, *, limit: int = 5, mode: Mode = "fused") -> list[Hit]:
        """The best passages of a collection of the call's team, best first.

        Raises ``InvalidRequest``, ``NotFound`` for the collection, and what the door raises.
        """
        if not query.strip():
            raise InvalidRequest("The question is empty.", param="query")
        if not 1 <= limit <= MOST_HITS or mode not in MODES:
            raise InvalidRequest(f"A search gives 1 to {MOST_HITS} hits, by one of: {', '.join(MODES)}.")
        collection = await self._book.get(call.tenant, name)
        loaded = await self._load(call.tenant, name, (collection.id, collection.revision))
        if not loaded.passages:
            return []
        similarities = None
        if mode != "lexical":
            request = Embed(model=collection.plan.model, inputs=(query[-_QUESTION_CHARACTERS:],), kind="query")
            question = (await self._inference().embed(request, call)).vectors[0]
            similarities = loaded.vectors @ np.frombuffer(question, "<f4")
        scores = None if mode == "dense" else await asyncio.to_thread(loaded.words.scores, query)
        return [
            Hit(
                passage=loaded.passages[place],
                score=score,
                similarity=None if similarities is None else float(similarities[place]),
            )
            for place, score in _ranked(similarities, scores, limit)
        ]

    async def _load(self, tenant: str, name: str, key: tuple[str, int]) -> _Loaded:
        which = (tenant, name)
        async with self._loading.setdefault(which, asyncio.Lock()):
            held = self._loaded.get(which)
            if held is None or held.key != key:
                collection, rows = await self._book.passages(tenant, name)
                held = await asyncio.to_thread(_build, (collection.id, collection.revision), rows)
                self._loaded[which] = held
            self._loaded.move_to_end(which)
            while len(self._loaded) > _KEPT:
                self._loaded.popitem(last=False)
            return held


def _build(key: tuple[str, int], rows: Sequence[tuple[Passage, bytes]]) -> _Loaded:
    passages = [passage for passage, _ in rows]
    vectors = np.frombuffer(b"".join(vector for _, vector in rows), "<f4").reshape(len(rows), -1 if rows else 0)
    return _Loaded(key, passages, vectors, LexicalIndex(f"{each.heading}\n{each.text}" for each in passages))


def _ranked(
    similarities: NDArray[np.float32] | None, scores: NDArray[np.float32] | None, limit: int
) -> list[tuple[int, float]]:
    """Places with the score that orders them."""
    if scores is None and similarities is not None:
        return [(place, float(similarities[place])) for place in best(similarities, limit)]
    if similarities is None and scores is not None:
        return [(place, float(scores[place])) for place in best(scores, limit, above=0)]
    fused: dict[int, float] = {}
    for ranking, above in ((similarities, -np.inf), (scores, 0.0)):
        if ranking is not None:
            for rank, place in enumerate(best(ranking, max(_DEPTH, limit), above), 1):
                fused[place] = fused.get(place, 0.0) + 1 / (_RANK_CONSTANT + rank)
    return sorted(fused.items(), key=lambda item: (-item[1], item[0]))[:limit]
