"""How far people agree beyond chance, with one another and with judging models, and what a judge's score is worth.

Cohen, "A coefficient of agreement for nominal scales" (1960); Krippendorff, "Computing Krippendorff's
alpha-reliability" (2011); calibration by isotonic regression (pool adjacent violators; Zadrozny & Elkan 2002).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

Label = TypeVar("Label", bound=Hashable)


def cohen_kappa(pairs: Sequence[tuple[Label, Label]]) -> float | None:
    """Agreement of two who labelled the same items, 1 at best, 0 as by chance; ``None`` where chance leaves no room."""
    if not pairs:
        return None
    left, right = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    chance = sum(left[label] * right[label] for label in left) / len(pairs) ** 2
    agreed = sum(a == b for a, b in pairs) / len(pairs)
    return None if chance == 1 else (agreed - chance) / (1 - chance)


def nominal(left: Hashable, right: Hashable) -> float:
    """Labels differ or they do not."""
    return float(left != right)


def interval(left: float, right: float) -> float:
    """Numbers differ by their squared distance."""
    return (left - right) ** 2


def krippendorff_alpha(
    items: Iterable[Sequence[Label]], distance: Callable[[Label, Label], float] = nominal
) -> float | None:
    """Agreement of any number of people, each of whom may have skipped items: one sequence of labels an item.

    1 at best, 0 as by chance; ``None`` where no item has two labels or all labels are the same one.
    """
    rated = [labels for labels in items if len(labels) > 1]
    together: Counter[Label] = Counter(label for labels in rated for label in labels)
    total = sum(together.values())
    within = 0.0
    for labels in rated:
        counts = Counter(labels)
        pairs = sum(counts[a] * counts[b] * distance(a, b) for a in counts for b in counts)
        within += pairs / (len(labels) - 1)
    chance = sum(together[a] * together[b] * distance(a, b) for a in together for b in together)
    return None if not chance else 1 - (total - 1) * within / chance


@dataclass(frozen=True, slots=True)
class Calibration:
    """What share of answers people approve, by a judge's score: steps that never fall."""

    starts: tuple[float, ...]
    """Scores at which a step begins."""
    rates: tuple[float, ...]

    def __call__(self, score: float) -> float:
        """The chance that people approve an answer of that score."""
        return self.rates[max(0, bisect_right(self.starts, score) - 1)]


def calibrate(judged: Iterable[tuple[float, bool]]) -> Calibration | None:
    """The calibration that (score, approved) pairs tell; ``None`` without any."""
    blocks: list[tuple[float, float, int]] = []  # first score, approved, all
    for score, pairs in groupby(sorted(judged), key=itemgetter(0)):
        words = [approved for _, approved in pairs]
        blocks.append((score, float(sum(words)), len(words)))
        while len(blocks) > 1 and _rate(blocks[-2]) >= _rate(blocks[-1]):
            (start, first, few), (_, second, many) = blocks[-2:]
            blocks[-2:] = [(start, first + second, few + many)]
    return Calibration(tuple(block[0] for block in blocks), tuple(_rate(block) for block in blocks)) if blocks else None


def _rate(block: tuple[float, float, int]) -> float:
    return block[1] / block[2]
