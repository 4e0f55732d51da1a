"""How rankings become one: fusion of meaning and words, and diversity. NumPy alone; a place is a passage's number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pagoda.logic.retrieval.lexical import best, nth_best

Ranked: TypeAlias = list[tuple[int, float]]
"""Places, best first, each with the score that orders them."""

_WORDS = 1.0
"""What sharing the most words is worth, in standard deviations of the cosine. Chosen on one half of two public sets
(``benchmarks/retrieval.py``): where few passages are near in meaning they stand out by more than this, and decide."""
_CROWD = 100
"""Passages. Words that so many have as well, or better, count for nothing; chosen with ``_WORDS``."""


def cosines(vectors: NDArray[np.float32], question: bytes, spans: Iterable[slice] | None = None) -> NDArray[np.float32]:
    """Of each row and a question's vector (little-endian float32), all of unit length; outside of ``spans`` -inf.

    ``einsum`` uses no BLAS, whose threads wait for one another far longer than a product takes while cores are busy.
    """
    wanted = np.frombuffer(question, "<f4")
    product = np.full(len(vectors), -np.inf, np.float32)
    for span in (slice(None),) if spans is None else spans:
        np.einsum("ij,j->i", vectors[span], wanted, out=product[span])
    return product


def rank(
    similarities: NDArray[np.float32] | None,
    scores: NDArray[np.float32] | None,
    limit: int,
    allowed: NDArray[np.bool_] | None = None,
) -> Ranked:
    """The best of those ``allowed``, by cosine ``similarities``, by ``scores`` of words, or by both fused."""
    if allowed is not None:
        similarities = None if similarities is None else np.where(allowed, similarities, -np.inf)
        scores = None if scores is None else np.where(allowed, scores, 0)
    if scores is None and similarities is not None:
        return [(place, float(similarities[place])) for place in best(similarities, limit, above=-np.inf)]
    if similarities is None and scores is not None:
        return [(place, float(scores[place])) for place in best(scores, limit, above=0)]
    if similarities is None or scores is None:
        raise ValueError("there is nothing to rank by")
    fused = _fused(similarities, scores, allowed)
    return [(place, float(fused[place])) for place in best(fused, limit, above=-np.inf)]


def _fused(
    similarities: NDArray[np.float32], scores: NDArray[np.float32], allowed: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    """A convex combination of both (Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval",
    2023), up to a factor: the cosine in standard deviations over its mean, the words' score as a share of the best,
    each by what stands out. Words stand out by what their score is above that of a crowd's last (``_CROWD``).
    """
    among = similarities if allowed is None else similarities[allowed]
    spread, most = float(among.std()), float(scores.max(initial=0.0))
    meaning: NDArray[np.float32] = (similarities - among.mean()) / (spread or 1.0)
    common = nth_best(scores, _CROWD) if len(scores) > _CROWD else 0.0
    above: NDArray[np.float32] = np.maximum(scores - common, 0)
    return meaning + _WORDS * above / (most or 1.0)


def diversify(ranked: Ranked, vectors: NDArray[np.float32], diversity: float, limit: int) -> Ranked:
    """Maximal marginal relevance (Carbonell and Goldstein, 1998): each next one weighs what it adds.

    Relevance is the score scaled to 0 to 1 among the candidates; likeness to what is chosen is the cosine.
    """
    if not ranked:
        return []
    score = np.asarray([score for _, score in ranked])
    span = float(score.max() - score.min())
    relevance = (score - score.min()) / span if span else np.ones(len(ranked))
    rows = vectors[[place for place, _ in ranked]]
    likeness = rows @ rows.T
    chosen: list[int] = []
    left = list(range(len(ranked)))
    while left and len(chosen) < limit:
        nearest = likeness[np.ix_(left, chosen)].max(axis=1) if chosen else np.zeros(len(left))
        worth = (1 - diversity) * relevance[left] - diversity * nearest
        chosen.append(left.pop(int(worth.argmax())))
    return [ranked[number] for number in chosen]
