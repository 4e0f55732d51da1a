"""Exact and near duplicates: found by MinHash, confirmed by counting, each with its partner named. The same every time.

A text is the set of its 5-grams of characters, which suits Chinese as well as English. Its signature is 128 minima of
multiply-shift hashes (Broder, 1997); texts that agree in one of 32 bands of 4 are compared exactly, so a match is never
a guess: its similarity is the Jaccard index of the two sets.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pagoda.core.errors import InvalidRequest
from pagoda.model.data.rows import Row

_Grams: TypeAlias = npt.NDArray[np.uint32]
"""Hashes of a text's grams, each once, in order: a tenth of the memory of a set."""
_GRAM = 5
_BANDS, _ROWS = 32, 4
_RANDOM = np.random.default_rng(20261129)  # fixed: the same texts have the same signatures on every machine
_FACTORS = _RANDOM.integers(1, 2**63, _BANDS * _ROWS, dtype=np.uint64) | np.uint64(1)
_OFFSETS = _RANDOM.integers(0, 2**63, _BANDS * _ROWS, dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Match:
    """A row that repeats an earlier one, or one of a reference set."""

    row: Row
    partner: Row
    similarity: float
    """1 for the same text, up to case, width of characters and spaces."""

    @property
    def exact(self) -> bool:
        """Whether the texts are the same."""
        return self.similarity == 1.0

    @property
    def contradicts(self) -> bool:
        """Whether the two have the same text and different labels."""
        return self.exact and self.row.label != self.partner.label


class Index:
    """Texts seen so far. A new one is compared with those that may be like it."""

    def __init__(self, threshold: float = 0.8) -> None:
        if not 0.5 <= threshold <= 1:
            raise InvalidRequest("A threshold of similarity is from 0.5 to 1.", param="threshold")
        self._threshold = threshold
        self._rows: list[Row] = []
        self._grams: list[_Grams] = []
        self._bands: list[dict[bytes, list[int]]] = [{} for _ in range(_BANDS)]
        self._texts: dict[str, int] = {}

    def add(self, row: Row) -> None:
        """Remember a row."""
        text = normal(row.text)
        grams = _grams(text)
        self._put(row, text, grams, _keys(grams))

    def match_or_add(self, row: Row) -> Match | None:
        """The most similar row that was added and passes the threshold, of equal ones the first; or ``None``, and the
        row is added.

        A text that is not the same and has another label is no match: one word may be what makes the difference.
        """
        text = normal(row.text)
        if text in self._texts:
            return Match(row, self._rows[self._texts[text]], 1.0)
        grams = _grams(text)
        keys = _keys(grams)
        near = {place for band, key in enumerate(keys) for place in self._bands[band].get(key, ())}
        best, chosen = 0.0, -1
        for place in sorted(near):
            if self._rows[place].label != row.label:
                continue
            likeness = _jaccard(grams, self._grams[place])
            if likeness > best:
                best, chosen = likeness, place
        if best >= self._threshold:
            return Match(row, self._rows[chosen], min(best, 0.9999))
        self._put(row, text, grams, keys)
        return None

    def _put(self, row: Row, text: str, grams: _Grams, keys: Sequence[bytes]) -> None:
        place = len(self._rows)
        self._rows.append(row)
        self._grams.append(grams)
        self._texts.setdefault(text, place)
        for band, key in enumerate(keys):
            self._bands[band].setdefault(key, []).append(place)


def find_duplicates(
    rows: Iterable[Row], *, against: Sequence[Row] = (), threshold: float = 0.8
) -> tuple[list[Row], list[Match]]:
    """The rows that stay, and the matches of the others: with a row of ``against``, or an earlier one that stays."""
    index = Index(threshold)
    for row in against:
        index.add(row)
    kept: list[Row] = []
    matches: list[Match] = []
    for row in rows:
        found = index.match_or_add(row)
        if found is None:
            kept.append(row)
        else:
            matches.append(found)
    return kept, matches


def normal(text: str) -> str:
    """Text without differences of case, width and spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _grams(text: str) -> _Grams:
    coded = [text[place : place + _GRAM] for place in range(max(1, len(text) - _GRAM + 1))]
    return np.unique(np.array([zlib.crc32(gram.encode("utf-8", "surrogatepass")) for gram in coded], np.uint32))


def _keys(grams: _Grams) -> list[bytes]:
    hashes = grams.astype(np.uint64)
    minima: npt.NDArray[np.uint32] = np.full(_BANDS * _ROWS, 2**32 - 1, dtype=np.uint32)
    for part in np.array_split(hashes, -(-len(hashes) // 4096)):  # bounds the memory of long texts
        mixed = (part[:, None] * _FACTORS[None, :] + _OFFSETS[None, :]) >> np.uint64(32)
        minima = np.minimum(minima, mixed.min(axis=0).astype(np.uint32))
    return [minima[band * _ROWS : (band + 1) * _ROWS].tobytes() for band in range(_BANDS)]


def _jaccard(one: _Grams, other: _Grams) -> float:
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)
