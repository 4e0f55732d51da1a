"""Which passages of a collection a search may find: by fields of their documents, and by who asks.

What a field says is read once and kept as a number a document, so that any filter is a few operations on arrays. Fields
belong to a collection at one revision and go with it, so that they cannot be of another. Not here: what a field may be
called (``collection``), ranking.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pagoda.logic.retrieval.collection import HeldPassage, Tags
from pagoda.logic.retrieval.question import Refinement

_GAP = 64  # passages; fewer are read in less time than it takes to go around them
_KEPT = 64  # fields; further ones are read again each time
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Allowed:
    """The passages that may be found."""

    each: NDArray[np.bool_]
    """Whether it may, a passage."""
    spans: tuple[slice, ...]
    """All that may be found lie in these, and a few others between them."""


class Fields:
    """What is said of the documents of a collection, given the first passage and the number of passages of each."""

    def __init__(self, documents: Sequence[HeldPassage], sizes: NDArray[np.int64]) -> None:
        self._documents = documents
        self._sizes = sizes
        self._bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        self._keys = _numbered(each.tags.keys for each in documents)
        self._columns: dict[str, _Column[str | None]] = {}

    @property
    def limited(self) -> bool:
        """Whether some keys alone may see some of the documents."""
        return any(keys is not None for keys in self._keys.numbers)

    def allowed(self, key_id: str | None, refinement: Refinement) -> Allowed | None:
        """Which passages a key may find with these wishes; ``None``: all."""
        where, limited = refinement.where, refinement.limited
        if not where and ((key_id is None and limited) or not self.limited):
            return None
        visible = [keys for keys in self._keys.numbers if Tags(keys=keys).visible_to(key_id)]
        seen = self._keys.among(keys for keys in visible if limited or keys is None)
        for name, values in where.items():
            seen &= self._column(name).among(values)
        return Allowed(np.repeat(seen, self._sizes), self._spans(seen))

    def _column(self, name: str) -> _Column[str | None]:
        column = self._columns.get(name)
        if column is None:
            column = _numbered(each.said(name) for each in self._documents)
            if len(self._columns) < _KEPT and any(value is not None for value in column.numbers):
                self._columns[name] = column
        return column

    def _spans(self, seen: NDArray[np.bool_]) -> tuple[slice, ...]:
        """Of the passages of documents that are seen, with gaps that are not worth going around."""
        edges = self._bounds[np.flatnonzero(np.diff(seen, prepend=False, append=False))]
        begins, ends = edges[::2], edges[1::2]
        apart = np.flatnonzero(begins[1:] - ends[:-1] >= _GAP)
        begins, ends = np.append(begins[:1], begins[apart + 1]), np.append(ends[apart], ends[-1:])
        return tuple(slice(int(begin), int(end)) for begin, end in zip(begins, ends, strict=True))


@dataclass(frozen=True, slots=True)
class _Column(Generic[_Value]):
    """One field of all documents."""

    codes: NDArray[np.int64]
    """The number of what it says, a document."""
    numbers: dict[_Value, int]

    def among(self, values: Iterable[_Value]) -> NDArray[np.bool_]:
        """Whether it says one of these, a document."""
        wanted = np.zeros(len(self.numbers), np.bool_)
        wanted[[self.numbers[value] for value in values if value in self.numbers]] = True
        return wanted[self.codes]


def _numbered(values: Iterable[_Value]) -> _Column[_Value]:
    numbers: dict[_Value, int] = {}
    codes = np.fromiter((numbers.setdefault(value, len(numbers)) for value in values), np.int64)
    return _Column(codes, numbers)
