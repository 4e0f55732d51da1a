"""Search by words: BM25 over texts in memory.

English words are compared without their plural ``s``; Chinese and Japanese text by its characters and pairs of them, so
that words of two characters are found without a dictionary. Robertson and Zaragoza, "The Probabilistic Relevance
Framework: BM25 and Beyond", 2009.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

_SATURATION, _LENGTH_WEIGHT = 1.2, 0.75
_RANGES = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF))
_IDEOGRAPHS = "".join(f"{chr(first)}-{chr(last)}" for first, last in _RANGES)
_WORD = re.compile(rf"[^\W_{_IDEOGRAPHS}]+|[{_IDEOGRAPHS}]+")
_SPELT = re.compile(rf"[^\W_{_IDEOGRAPHS}]+")
_IDEOGRAPH = re.compile(f"[{_IDEOGRAPHS}]")
_AT_ONCE = 4096  # texts, so that a number of one fits beside a term's code
_PLACE_BITS = 12
_DRAWN = 1 << 32  # and above: codes of terms of ideographs
_KEY_BITS = 28  # of a posting's key, that number its text; those above are its term's code
_TEXT = (1 << _KEY_BITS) - 1
_PART = 1 << 18
_BLOCK = 64  # scores
_WORN = 50_000  # forms of words


def words(text: str) -> list[str]:
    """What two texts have in common when they speak of the same."""
    found: list[str] = []
    for match in _WORD.finditer(text.lower()):
        word = match[0]
        if _IDEOGRAPH.match(word):
            found += [*word, *(word[at : at + 2] for at in range(len(word) - 1))]
        else:
            found.append(_stem(word))
    return found


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


class LexicalIndex:
    """Texts, found by their words. What each word adds to the score of each text is worked out once.

    A term is a number: of a spelt word by a table, of one or two ideographs made of these themselves, so that Chinese
    needs no loop over its characters. How often a term stands in a text is a posting; its key is the term's number and
    the text's, and keys are kept in order.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._terms = _Terms()
        postings = _postings(texts, self._terms)
        self._forms = len(self._terms)
        self._weigh(postings.keys, postings.times, postings.lengths)

    @property
    def worn(self) -> bool:
        """Whether most words that it remembers may be of texts that are gone, so that a new one is better."""
        return len(self._terms) > 2 * self._forms + _WORN

    def spliced(self, before: NDArray[np.int64], texts: Iterable[str]) -> LexicalIndex:
        """The index of other texts, of which most are the same; equal to one that is made of nothing.

        ``before`` has for each text its number here, rising, or -1 for those that are new: ``texts``, in their order.
        """
        new = np.flatnonzero(before < 0)
        staying = np.flatnonzero(before >= 0)
        place = np.full(len(self._lengths), -1, np.int64)
        place[before[staying]] = staying
        lengths = np.empty(len(before), np.float32)
        fresh = _postings(texts, self._terms, new)
        lengths[staying], lengths[new] = self._lengths[before[staying]], fresh.lengths
        index = LexicalIndex.__new__(LexicalIndex)
        index._terms, index._forms = self._terms, self._forms
        index._weigh(*self._with(fresh, place), lengths)
        return index

    def _with(self, fresh: _Postings, place: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Keys and times with those that are fresh among them, and texts numbered by ``place`` (-1: gone)."""
        keys = np.empty(len(self._keys) + len(fresh.keys), np.int64)
        times = np.empty(len(keys), np.float32)
        size = merged = 0
        for part in _parts(len(self._keys)):
            moved = place[self._keys[part] & _TEXT]
            kept = moved >= 0
            some = (self._keys[part] & ~_TEXT)[kept] | moved[kept]
            upto = int(np.searchsorted(fresh.keys, some[-1])) if len(some) else merged
            if part.stop == len(self._keys):
                upto = len(fresh.keys)
            at = np.searchsorted(some, fresh.keys[merged:upto])
            end = size + len(some) + upto - merged
            keys[size:end] = np.insert(some, at, fresh.keys[merged:upto])
            times[size:end] = np.insert(self._times[part][kept], at, fresh.times[merged:upto])
            size, merged = end, upto
        return keys[:size], times[:size]

    def _weigh(self, keys: NDArray[np.int64], times: NDArray[np.float32], lengths: NDArray[np.float32]) -> None:
        """Work out what each posting is worth."""
        self._keys, self._times, self._lengths = keys, times, lengths
        size = len(lengths)
        starts = np.ones(len(keys), np.bool_)
        for part in _parts(len(keys) - 1):
            starts[part.start + 1 : part.stop + 1] = keys[part] | _TEXT < keys[part.start + 1 : part.stop + 1]
        first = np.flatnonzero(starts)
        self._codes = keys[first] >> _KEY_BITS
        self._begins = np.append(first, len(keys))
        holding = np.diff(self._begins)
        stretch = 1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * lengths / max(float(lengths.mean()) if size else 0.0, 1.0)
        stretch = (_SATURATION * stretch).astype(np.float32)
        rarity = np.log(1 + (size - holding + 0.5) / (holding + 0.5)).astype(np.float32)
        self._weights = np.repeat(rarity, holding)
        for part in _parts(len(keys)):
            often = times[part]
            self._weights[part] *= often * (_SATURATION + 1) / (often + stretch[keys[part] & _TEXT])

    def scores(self, query: str) -> NDArray[np.float32]:
        """The score of every text, 0 where no word is shared."""
        total = np.zeros(len(self._lengths), np.float32)
        for code in dict.fromkeys(self._terms.code(word) for word in words(query)):
            place = int(np.searchsorted(self._codes, code))
            if place < len(self._codes) and self._codes[place] == code:
                posting = slice(self._begins[place], self._begins[place + 1])
                total[self._keys[posting] & _TEXT] += self._weights[posting]
        return total


def best(scores: NDArray[np.float32], limit: int, above: float = -np.inf) -> list[int]:
    """The places of the highest scores, best first and equal ones in their order; only those ``above`` a score."""
    limit = min(limit, len(scores))
    if limit == 0:
        return []
    chosen = np.flatnonzero((scores >= nth_best(scores, limit)) & (scores > above))
    return [int(place) for place in chosen[np.argsort(-scores[chosen], kind="stable")][:limit]]


def nth_best(scores: NDArray[np.float32], number: int) -> float:
    """The score that ``number`` of the scores reach, of at least as many.

    Each block's highest is one of them, so the bound from these alone leaves few to look through. Without it NumPy's
    ``partition`` takes ten times as long where most scores are equal, as those of words are.
    """
    blocks = len(scores) // _BLOCK
    if blocks >= number:
        highest = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
        bound = np.partition(highest, blocks - number)[blocks - number]
        scores = scores[scores > bound]
        if len(scores) < number:
            return float(bound)
    return float(np.partition(scores, len(scores) - number)[len(scores) - number])


class _Terms(dict[str, int]):
    """The number of each spelt word, by every form of it that was seen."""

    def __init__(self) -> None:
        self._stems: dict[str, int] = {}

    def __missing__(self, word: str) -> int:
        number = self[word] = self._stems.setdefault(_stem(word), len(self._stems))
        return number

    def code(self, term: str) -> int:
        """The number of one of ``words``; -1 for a spelt one that no text has."""
        if _IDEOGRAPH.match(term):
            return _DRAWN + (ord(term[0]) << 16 | ord(term[1]) if len(term) > 1 else ord(term))
        return self._stems.get(term, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """How often each term stands in each of some texts, one after another."""

    codes: NDArray[np.int64]
    places: NDArray[np.int64]
    times: NDArray[np.float32]
    lengths: NDArray[np.int64]
    """Of each text, in terms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Postings:
    """Of some texts: how often which term stands in which of them, and their lengths in terms."""

    keys: NDArray[np.int64]
    times: NDArray[np.float32]
    lengths: NDArray[np.float32]


def _postings(texts: Iterable[str], terms: _Terms, numbers: NDArray[np.int64] | None = None) -> _Postings:
    """In the order of their keys; ``numbers`` are those of the texts, else they count from 0."""
    counted = [_counted(some, terms) for some in _batches(texts)]
    lengths = np.concatenate([np.zeros(0), *(each.lengths for each in counted)]).astype(np.float32)
    begins = np.cumsum([0, *(len(each.lengths) for each in counted)])
    found = [each.places + begin for each, begin in zip(counted, begins, strict=False)]
    places = np.concatenate([np.zeros(0, np.int64), *found])
    codes = np.concatenate([np.zeros(0, np.int64), *(each.codes for each in counted)])
    keys = codes << _KEY_BITS | (places if numbers is None else numbers[places])
    times = np.concatenate([np.zeros(0, np.float32), *(each.times for each in counted)])
    order = np.argsort(keys)
    return _Postings(keys=keys[order], times=times[order], lengths=lengths)


def _parts(size: int) -> Iterator[slice]:
    """What is worked on at a time: whole columns of postings would be copied many times, in memory not yet there."""
    for begin in range(0, size, _PART):
        yield slice(begin, min(begin + _PART, size))


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    left = iter(texts)
    while some := list(islice(left, _AT_ONCE)):
        yield some


def _counted(texts: Sequence[str], terms: _Terms) -> _Counted:
    lowered = [text.lower() for text in texts]
    spelt = [_SPELT.findall(text) for text in lowered]
    numbers = np.fromiter(map(terms.__getitem__, chain.from_iterable(spelt)), np.int64)
    holders = np.repeat(np.arange(len(texts)), [len(each) for each in spelt])
    codes, places = _drawn(lowered)
    codes, places = np.concatenate((numbers, codes)), np.concatenate((holders, places))
    pairs, times = np.unique(codes << _PLACE_BITS | places, return_counts=True)
    return _Counted(
        codes=pairs >> _PLACE_BITS,
        places=pairs & (_AT_ONCE - 1),
        times=times.astype(np.float32),
        lengths=np.bincount(places, minlength=len(texts)),
    )


def _drawn(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The terms of ideographs, and the place of the text that each stands in."""
    some = [(place, f"{text}\n") for place, text in enumerate(texts) if not text.isascii()]
    joined = "".join(text for _, text in some).encode("utf-32-le", "surrogatepass")
    letters = np.frombuffer(joined, "<u4").astype(np.int64)
    places = np.repeat(np.asarray([place for place, _ in some], np.int64), [len(text) for _, text in some])
    one = np.zeros(len(letters), np.bool_)
    for first, last in _RANGES:
        one |= (letters >= first) & (letters <= last)
    two = np.flatnonzero(one[:-1] & one[1:])  # never of two texts, since a line's end stands between them
    codes = np.concatenate((letters[one], letters[two] << 16 | letters[two + 1])) + _DRAWN
    return codes, np.concatenate((places[one], places[two]))
