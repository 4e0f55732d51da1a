"""How often the semantic cache would be wrong, measured on labelled pairs: the figures it may be switched on by.

``pairs.jsonl`` holds pairs of questions in English and Chinese: paraphrases, which should hit, and pairs that differ in
a negation, a number, an entity, the order or the time, which must not. Halves are split by hash: the threshold is
chosen on one, and the other, which had no say in it, tells the rates. Only the threshold is held out: the word lists of
the guard were written by those who wrote the pairs, so real traffic may well be worse.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

import orjson

from pagoda.service.cache.guard import agree

Language = Literal["en", "zh"]
SAME = "paraphrase"
USEFUL_TRUE_HITS = 0.1
"""Share of paraphrases below which a semantic cache is not worth its embedding."""
_OFF = 1.01  # no cosine reaches it


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions, and whether they are the same (``paraphrase``) or how they differ."""

    kind: str
    language: Language
    one: str
    other: str

    @property
    def chooses(self) -> bool:
        """Whether it belongs to the half that the threshold is chosen on."""
        return hashlib.blake2b(f"{self.one}\0{self.other}".encode()).digest()[0] % 2 == 0


@dataclass(frozen=True, slots=True)
class Rate:
    """Hits among the held-out pairs of a kind and language, with the 95 % Wilson interval of their share."""

    kind: str
    language: str
    pairs: int
    hits: int

    @property
    def share(self) -> float:
        """Hits per pair."""
        return self.hits / self.pairs if self.pairs else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        return wilson(self.hits, self.pairs)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold and what it does on pairs that did not choose it."""

    guarded: bool
    threshold: float
    rates: tuple[Rate, ...]

    def total(self, *, same: bool, language: str = "") -> Rate:
        """All paraphrases, or all pairs that differ, of one language or of both."""
        rows = [
            rate for rate in self.rates if (rate.kind == SAME) == same and (not language or rate.language == language)
        ]
        kind = SAME if same else "different"
        return Rate(kind, language or "both", sum(row.pairs for row in rows), sum(row.hits for row in rows))

    @property
    def false_hits(self) -> float:
        """Share of different questions that would get another's answer, in the worse language."""
        return max(self.total(same=False, language=language).share for language in ("en", "zh"))

    @property
    def true_hits(self) -> float:
        """Share of paraphrases that would hit."""
        return self.total(same=True).share

    def verdict(self, allowed: float) -> str:
        """Empty when it may be used; else why not, in a sentence."""
        if self.false_hits > allowed:
            return (
                f"its false-hit rate of {self.false_hits:.1%} exceeds the allowed {allowed:.1%} "
                "(cache.semantic_max_false_hits)."
            )
        if self.true_hits < USEFUL_TRUE_HITS:
            return (
                f"it is useless within the allowed {allowed:.1%}: only {self.true_hits:.1%} of paraphrases would hit."
            )
        return ""


def read_pairs() -> tuple[Pair, ...]:
    """The labelled pairs."""
    text = resources.files(__package__).joinpath("pairs.jsonl").read_text(encoding="utf-8")
    return tuple(Pair(**orjson.loads(line)) for line in text.splitlines())


def calibrate(pairs: Sequence[Pair], vectors: Mapping[str, bytes], allowed: float, *, guarded: bool) -> Calibration:
    """The lowest threshold whose false hits on the choosing half are within ``allowed``, measured on the other half."""
    scored = [
        (pair, cosine(vectors[pair.one], vectors[pair.other]) if not guarded or agree(pair.one, pair.other) else -1.0)
        for pair in pairs
    ]
    threshold = _threshold([(pair, score) for pair, score in scored if pair.chooses], allowed)
    held = [(pair, score) for pair, score in scored if not pair.chooses]
    kinds = dict.fromkeys((pair.kind, pair.language) for pair in pairs)
    rates = []
    for kind, language in kinds:
        scores = [score for pair, score in held if (pair.kind, pair.language) == (kind, language)]
        rates.append(Rate(kind, language, len(scores), sum(score >= threshold for score in scores)))
    return Calibration(guarded, threshold, tuple(rates))


def _threshold(scored: Sequence[tuple[Pair, float]], allowed: float) -> float:
    """The lowest cosine that keeps the share of false hits, in each language, within what is allowed."""
    for threshold in sorted({score for _, score in scored if score > 0}):
        for language in ("en", "zh"):
            wrong = [score for pair, score in scored if pair.kind != SAME and pair.language == language]
            if sum(score >= threshold for score in wrong) > allowed * len(wrong):
                break
        else:
            return threshold
    return _OFF


def cosine(left: bytes, right: bytes) -> float:
    """Of two vectors of unit length, as float32 bytes."""
    return sum(x * y for x, y in zip(array("f", left), array("f", right), strict=True))


def wilson(hits: int, pairs: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share."""
    if pairs == 0:
        return 0.0, 1.0
    share, weight = hits / pairs, z * z / pairs
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / pairs + weight / (4 * pairs)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)
