"""Search by words: BM25 over texts in memory.

English words are compared without their plural ``s``; Chinese and Japanese text by its characters and pairs of them, so
that words of two characters are found without a dictionary. Robertson and Zaragoza, "The Probabilistic Relevance
Framework: BM25 and Beyond", 2009.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_SATURATION, _LENGTH_WEIGHT = 1.2, 0.75
_IDEOGRAPHS = "\u3400-\u4dbf\u4e00-\u9fff\u3040-\u30ff"
_WORD = re.compile(rf"[^\W_{_IDEOGRAPHS}]+|[{_IDEOGRAPHS}]+")
_IDEOGRAPH = re.compile(f"[{_IDEOGRAPHS}]")


def words(text: str) -> list[str]:
    """What two texts have in common when they speak of the same."""
    found: list[str] = []
    for match in _WORD.finditer(text.lower()):
        word = match[0]
        if _IDEOGRAPH.match(word):
            found += [*word, *(word[at : at + 2] for at in range(len(word) - 1))]
        else:
            found.append(word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word)
    return found


class LexicalIndex:
    """Texts, found by their words. What each word adds to the score of each text is worked out once."""

    def __init__(self, texts: Iterable[str]) -> None:
        terms: dict[str, int] = {}
        held, places, times, lengths = list[int](), list[int](), list[int](), list[int]()
        for place, text in enumerate(texts):
            counts = Counter(words(text))
            lengths.append(counts.total())
            held += [terms.setdefault(word, len(terms)) for word in counts]
            times += counts.values()
            places += [place] * len(counts)
        self._terms, self._size = terms, len(lengths)
        term = np.asarray(held, np.int64)
        order = np.argsort(term, kind="stable")
        holding = np.bincount(term, minlength=len(terms))
        self._begins = np.concatenate(([0], np.cumsum(holding)))
        self._places = np.asarray(places, np.int64)[order]
        length = np.asarray(lengths, np.float32)
        stretch = 1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * length / max(float(length.mean()) if lengths else 0.0, 1.0)
        rarity = np.log(1 + (self._size - holding + 0.5) / (holding + 0.5))
        count = np.asarray(times, np.float32)[order]
        saturated = count * (_SATURATION + 1) / (count + _SATURATION * stretch[self._places])
        self._weights = (rarity[term[order]] * saturated).astype(np.float32)

    def scores(self, query: str) -> NDArray[np.float32]:
        """The score of every text, 0 where no word is shared."""
        total = np.zeros(self._size, np.float32)
        for word in set(words(query)):
            if (term := self._terms.get(word)) is not None:
                posting = slice(self._begins[term], self._begins[term + 1])
                total[self._places[posting]] += self._weights[posting]
        return total


def best(scores: NDArray[np.float32], limit: int, above: float = -np.inf) -> list[int]:
    """The places of the highest scores, best first and equal ones in their order; only those ``above`` a score."""
    limit = min(limit, len(scores))
    if limit == 0:
        return []
    floor = np.partition(scores, len(scores) - limit)[len(scores) - limit]
    chosen = np.flatnonzero((scores >= floor) & (scores > above))
    return [int(place) for place in chosen[np.argsort(-scores[chosen], kind="stable")][:limit]]
