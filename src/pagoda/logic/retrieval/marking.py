"""What came of an exam: ranks as recall and reciprocal rank, answers as right, cited and withheld, with intervals.

All intervals are of 95 %, Wilson's of a rate. A mean of numbers from 0 to 1 varies no more than a rate does, so that it
holds for these too, and says something where all are 1, as a bootstrap does not. Not here: the questions (``exam``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pagoda.core.types import Json
from pagoda.logic.evaluation.scorers import plain
from pagoda.logic.evaluation.statistics import Interval, wilson
from pagoda.logic.retrieval.answering import SourcedAnswer
from pagoda.logic.retrieval.exam import ExamQuestion
from pagoda.logic.texts.citations import CITATION

FIRST = (1, 5)
"""Passages among which the right one is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What is to be said of one answer; ``None`` where it cannot be told."""

    answerable: bool
    answered: bool
    exact: bool | None = None
    """The answer is, but for citations and punctuation around it, one of those that are right."""
    contains: bool | None = None
    """One of them stands in it."""
    cited: int = 0
    """Spans."""
    holding: int | None = None
    """Of these, that hold the answer."""


def mark(question: ExamQuestion, answer: SourcedAnswer) -> Mark:
    """What is to be said of an answer."""
    answered = answer.outcome == "answered"
    if not answered or not question.answerable:
        missed = False if question.answerable and question.answers else None
        return Mark(answerable=question.answerable, answered=answered, exact=missed, contains=missed)
    said, right = plain(CITATION.sub(" ", answer.text)), [plain(each) for each in question.answers]
    # A quoted sentence may be a part of the text that is known to answer.
    quoted = answer.model is None and bool(question.texts) and not question.places
    held = [None if quoted else question.held_by(citation.passage) for citation in answer.citations]
    return Mark(
        answerable=True,
        answered=True,
        exact=said in right if right else None,
        contains=any(each in said for each in right) if right else None,
        cited=len(held),
        holding=None if None in held else sum(map(bool, held)),
    )


def search_figures(ranks: Sequence[Mapping[str, int]]) -> dict[str, dict[str, Json]]:
    """By method: recall among the first, and the mean reciprocal rank (0 where the right one was not found)."""
    figures: dict[str, dict[str, Json]] = {}
    for method in ranks[0] if ranks else ():
        found = np.asarray([rank[method] for rank in ranks])
        told: dict[str, Json] = {
            f"recall_at_{most}": _told(wilson(int(((found > 0) & (found <= most)).sum()), len(found)), len(found))
            for most in FIRST
        }
        reciprocal = np.where(found > 0, 1 / np.maximum(found, 1), 0.0)
        figures[method] = told | {"mrr": _told(wilson(float(reciprocal.sum()), len(found)), len(found))}
    return figures


def answer_figures(marks: Sequence[Mark]) -> dict[str, Json]:
    """Shares, each with what it is a share of. An answer that was withheld is a wrong one."""
    told = [each for each in marks if each.answerable]
    untold = [each for each in marks if not each.answerable]
    given = [each for each in told if each.answered]
    return {
        "exact": _share(told, lambda each: each.exact),
        "contains": _share(told, lambda each: each.contains),
        "cites_nothing": _share(given, lambda each: each.cited == 0),
        "spans_holding": _spans(given),
        "withheld_though_told": _share(told, lambda each: not each.answered),
        "answered_though_not_told": _share(untold, lambda each: each.answered),
        "abstained_where_not_told": _share(untold, lambda each: not each.answered),
    }


def _share(marks: Iterable[Mark], of: Callable[[Mark], bool | None]) -> Json:
    """The share of those that can be told."""
    said = [verdict for each in marks if (verdict := of(each)) is not None]
    return _told(wilson(sum(said), len(said)), len(said))


def _spans(marks: Iterable[Mark]) -> Json:
    """Of all cited spans. Those of one answer come or go together: the interval is that of as many answers."""
    known = [each for each in marks if each.cited and each.holding is not None]
    cited, holding = sum(each.cited for each in known), sum(each.holding or 0 for each in known)
    return _told(wilson(holding / max(cited, 1) * len(known), len(known)), cited)


def _told(interval: Interval | None, of: int) -> Json:
    """``None``: there is nothing to take a share of."""
    if interval is None:
        return None
    told: dict[str, Any] = {name: round(value, 6) for name, value in asdict(interval).items()}
    return told | {"of": of}
