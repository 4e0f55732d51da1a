"""How often answers like this to questions like this were right before: a linear classifier on hashed words.

It knows nothing of the world and is looked at only where there are no sources. It was fitted on people's judgements of
one large model's answers in English; of other languages it says nothing, and for other models it is a guess. Hashing as
in Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009, without signs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from zlib import crc32

from pagoda.logic.trust.evidence import tokens
from pagoda.logic.trust.subject import language_of
from pagoda.logic.trust.weights import read_weights

SIZE = 16384
"""Places that words are hashed to."""
_MOST_WORDS = 400  # of a question, and of an answer
_STEP = 1000  # weights are kept as whole thousandths


@dataclass(frozen=True, slots=True)
class Precedent:
    """The classifier: a weight for each place, and a bias."""

    weights: tuple[float, ...]
    bias: float

    def odds(self, question: str, answer: str) -> float:
        """Log-odds of right; 0, which is to say nothing, for other languages than English."""
        if language_of(f"{question} {answer}") != "en":
            return 0.0
        return self.bias + sum(self.weights[place] * value for place, value in hashed(question, answer).items())


@cache
def precedent() -> Precedent:
    """The one that comes with Pagoda."""
    kept = read_weights("precedent")
    return Precedent(tuple(weight / _STEP for weight in kept["weights"]), float(kept["bias"]))


def hashed(question: str, answer: str) -> Mapping[int, float]:
    """The words and pairs of words of a question and an answer by place, of unit length together."""
    counts: Counter[int] = Counter()
    for part, text in (("q", question), ("a", answer)):
        found = tokens(text)[:_MOST_WORDS]
        counts.update(crc32(f"{part} {word}".encode()) % SIZE for word in found)
        counts.update(crc32(f"{part} {one} {other}".encode()) % SIZE for one, other in pairwise(found))
    values = {place: 1 + math.log(count) for place, count in counts.items()}
    length = math.sqrt(sum(value * value for value in values.values())) or 1.0
    return {place: value / length for place, value in values.items()}
