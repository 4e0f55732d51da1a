"""A collection in memory: the vectors and words of its passages, as its records are at one revision.

It comes from the records alone. After a change only the documents that are new or other are read, and what was there is
put together with them, equal to what all of the records would give; nothing of it is ever kept on the disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pagoda.logic.retrieval.collection import Collection, HeldPassage, Listed, Passage
from pagoda.logic.retrieval.lexical import LexicalIndex
from pagoda.logic.retrieval.narrowing import Allowed, Fields
from pagoda.logic.retrieval.ranking import Ranked, cosines, rank

_COPIED = 4096  # vectors at a time, into the matrix


@dataclass(frozen=True, slots=True)
class Loaded:
    """The passages of a collection, in the order of sources and of their texts."""

    collection: str
    """Its id."""
    revision: int
    documents: Mapping[str, Listed]
    """By id."""
    held: list[HeldPassage]
    vectors: NDArray[np.float32]
    """A row a passage."""
    words: LexicalIndex
    begins: NDArray[np.int64]
    """The first passage of each document: labels and keys are the same for all of one."""
    fields: Fields

    def ranked(
        self, query: str, question: bytes | None, limit: int, allowed: Allowed | None, *, words: bool
    ) -> tuple[Ranked, NDArray[np.float32] | None]:
        """The best passages by a question's vector, its words, or both; and the cosines of all that may be found."""
        some, spans = (None, None) if allowed is None else (allowed.each, allowed.spans)
        similarities = None if question is None else cosines(self.vectors, question, spans)
        return rank(similarities, self.words.scores(query) if words else None, limit, some), similarities

    def renewed(
        self, collection: Collection, listed: Mapping[str, Listed], fresh: Mapping[str, Sequence[HeldPassage]]
    ) -> Loaded:
        """As the records are now: the documents ``listed``, in this order, of which those ``fresh`` are not here so."""
        pieces = _pieces(self._spans(), listed, fresh)
        before = np.concatenate([np.zeros(0, np.int64), *(piece.places for piece in pieces)])
        held = [passage for piece in pieces for passage in piece.passages(self.held)]
        told = (told_of(passage.passage) for piece in pieces for passage in piece.fresh)
        documents = [row.passage.document for row in held]
        first = [place for place, each in enumerate(documents) if place == 0 or each != documents[place - 1]]
        begins = np.asarray(first, np.int64)
        return Loaded(
            collection=collection.id,
            revision=collection.revision,
            documents=listed,
            held=held,
            vectors=self._spliced(pieces, len(held)),
            words=self.words.spliced(before, told) if self.held else LexicalIndex(told),
            begins=begins,
            fields=Fields([held[place] for place in first], np.diff(begins, append=len(held))),
        )

    def _spans(self) -> dict[str, tuple[int, int]]:
        """The first passage of each document that has any, and the one after its last."""
        ends = [*self.begins[1:], len(self.held)] if len(self.begins) else []
        return {
            self.held[begin].passage.document: (int(begin), int(end))
            for begin, end in zip(self.begins, ends, strict=True)
        }

    def _spliced(self, pieces: Sequence[_Piece], size: int) -> NDArray[np.float32]:
        """The matrix of all pieces."""
        width = self.vectors.shape[1] or next((len(each.fresh[0].vector) // 4 for each in pieces if each.fresh), 0)
        vectors = np.empty((size, width), "<f4")
        place = 0
        for piece in pieces:
            if not piece.fresh:
                vectors[place : place + piece.size] = self.vectors[piece.begin : piece.begin + piece.size]
            for begin in range(0, len(piece.fresh), _COPIED):
                some = b"".join(row.vector for row in piece.fresh[begin : begin + _COPIED])
                rows = np.frombuffer(some, "<f4").reshape(-1, width)
                vectors[place + begin : place + begin + len(rows)] = rows
            place += piece.size
        return vectors


def empty() -> Loaded:
    """Nothing of any collection."""
    nothing = np.zeros(0, np.int64)
    return Loaded("", -1, {}, [], np.zeros((0, 0), "<f4"), LexicalIndex(()), nothing, Fields((), nothing))


@dataclass(slots=True)
class _Piece:
    """Passages that stand one after another: some that are here already, or fresh ones."""

    begin: int = 0
    size: int = 0
    fresh: list[HeldPassage] = field(default_factory=list)

    @property
    def places(self) -> NDArray[np.int64]:
        """Where each was; -1: nowhere."""
        return np.full(self.size, -1, np.int64) if self.fresh else np.arange(self.begin, self.begin + self.size)

    def passages(self, held: Sequence[HeldPassage]) -> Iterable[HeldPassage]:
        """Without their vectors, which the matrix has."""
        if not self.fresh:
            return held[self.begin : self.begin + self.size]
        return (replace(row, vector=b"") for row in self.fresh)


def _pieces(
    spans: Mapping[str, tuple[int, int]], listed: Iterable[str], fresh: Mapping[str, Sequence[HeldPassage]]
) -> list[_Piece]:
    """What the new order is put together from, as few pieces as it takes."""
    return list(_joined(_piece(spans, document, fresh) for document in listed))


def _piece(spans: Mapping[str, tuple[int, int]], document: str, fresh: Mapping[str, Sequence[HeldPassage]]) -> _Piece:
    if document in fresh:
        return _Piece(size=len(fresh[document]), fresh=list(fresh[document]))
    begin, end = spans.get(document, (0, 0))
    return _Piece(begin, end - begin)


def _joined(pieces: Iterable[_Piece]) -> Iterator[_Piece]:
    last = _Piece()
    for piece in pieces:
        if not piece.size:
            continue
        if last.fresh and piece.fresh:
            last.fresh += piece.fresh
            last.size += piece.size
        elif last.size and not last.fresh and not piece.fresh and piece.begin == last.begin + last.size:
            last.size += piece.size
        else:
            if last.size:
                yield last
            last = piece
    if last.size:
        yield last


def told_of(passage: Passage) -> str:
    """What of a passage is compared by words and read by a reranker."""
    return f"{passage.heading}\n{passage.text}"
