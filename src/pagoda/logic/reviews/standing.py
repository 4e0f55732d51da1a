"""How far those who reviewed agree: with one another, and judging models with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from pagoda.logic.reviews.agreement import Calibration, calibrate, cohen_kappa, krippendorff_alpha
from pagoda.logic.reviews.book import Review


@dataclass(frozen=True, slots=True)
class Pair:
    """Two people on the items that both judged."""

    reviewers: tuple[str, str]
    items: int
    kappa: float | None


@dataclass(frozen=True, slots=True)
class JudgeStanding:
    """A judging model beside what people decided: whether an answer may stand as it is."""

    judge: str
    items: int
    """Where both spoke; items on which the judge could not make up its mind are apart."""
    unsure: int
    agreement: float | None
    kappa: float | None
    calibration: Calibration | None


@dataclass(frozen=True, slots=True)
class Standing:
    """All of it."""

    items: int
    """Judged by at least two people."""
    alpha: float | None
    pairs: tuple[Pair, ...]
    judges: tuple[JudgeStanding, ...]


def standing(reviews: Sequence[Review]) -> Standing:
    """The agreement that reviews show."""
    said = [
        {each.reviewer: each.decision for each in review.judgements if each.decision is not None and not each.judge}
        for review in reviews
    ]
    people = sorted({name for words in said for name in words})
    pairs = []
    for left, right in combinations(people, 2):
        both = [(words[left], words[right]) for words in said if left in words and right in words]
        if both:
            pairs.append(Pair((left, right), len(both), cohen_kappa(both)))
    alpha = krippendorff_alpha([tuple(words.values()) for words in said])
    judges = sorted({each.reviewer for review in reviews for each in review.judgements if each.judge})
    return Standing(
        sum(len(words) > 1 for words in said), alpha, tuple(pairs), tuple(_judge(judge, reviews) for judge in judges)
    )


def _judge(judge: str, reviews: Sequence[Review]) -> JudgeStanding:
    both: list[tuple[bool, bool]] = []
    scored: list[tuple[float, bool]] = []
    unsure = 0
    for review in reviews:
        word = next((each for each in review.judgements if each.judge and each.reviewer == judge), None)
        if word is None or review.record.state == "waiting":
            continue
        stands = review.record.state == "approved"  # an edit says that it could not stand as it was
        if word.decision == "unsure":
            unsure += 1
            continue
        both.append((word.decision == "approve", stands))
        if word.score is not None:
            scored.append((word.score, stands))
    agreed = sum(a == b for a, b in both) / len(both) if both else None
    return JudgeStanding(judge, len(both), unsure, agreed, cohen_kappa(both), calibrate(scored))
