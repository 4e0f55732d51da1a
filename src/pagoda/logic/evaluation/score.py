"""The words of every evaluation: a case, what was answered, and what a scorer says of it.

A scorer that cannot tell says so: ``Score(None, None, reason)``. That is a value of its own, counted beside the others,
never a zero and never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pagoda.core.errors import PagodaError
from pagoda.core.types import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A question with what is expected of its answer."""

    id: str
    values: Mapping[str, Json]
    """The row of the data set, by column."""
    expected: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What was answered to a case."""

    text: str
    """As it was written."""
    answer: str | None = None
    """What was found in the text as the prompt says; ``None``: nothing was found."""
    reads_answer: bool = False
    """Whether the prompt says how its answer is found; else the text is the answer."""
    question: str = ""
    """What was asked, for judges."""

    @property
    def said(self) -> str | None:
        """What counts as the answer."""
        return self.answer if self.reads_answer else self.text


@dataclass(frozen=True, slots=True)
class Score:
    """What a scorer says: a number (0 to 1 unless the scorer says otherwise) and whether that is a success."""

    value: float | None
    passed: bool | None
    reason: str = ""

    @property
    def judged(self) -> bool:
        """Whether the scorer could tell."""
        return self.passed is not None


class Scorer(Protocol):
    """Says how good an answer is."""

    @property
    def name(self) -> str:
        """What it is called in reports."""
        ...

    async def score(self, case: Case, output: Output) -> Score:
        """The score; raising means that it could not judge."""
        ...


@dataclass(frozen=True, slots=True)
class Metric:
    """A scorer that waits for nothing: a name, and a function of case and output."""

    name: str
    judge: SyncJudge = field(repr=False)

    async def score(self, case: Case, output: Output) -> Score:
        """The function's word."""
        return self.judge(case, output)


class SyncJudge(Protocol):
    """A function that scores."""

    def __call__(self, case: Case, output: Output) -> Score:
        """The score."""
        ...


UNREAD = Score(0.0, False, "no answer was found in the text")


def could_not_judge(reason: str) -> Score:
    """The score of a scorer that cannot tell."""
    return Score(None, None, reason)


async def judged(scorer: Scorer, case: Case, output: Output) -> Score:
    """The score, whatever the scorer does: one that raises, or gives no finite number, could not judge.

    Errors of the model storey (an engine that is gone) pass, since asking again may help.
    """
    try:
        score = await scorer.score(case, output)
    except PagodaError:
        raise
    except Exception as error:  # noqa: BLE001 - a user's function may raise anything, and the other cases go on
        return could_not_judge(f"{scorer.name} raised {type(error).__name__}: {error}"[:500])
    if score.value is not None and not math.isfinite(score.value):
        return could_not_judge(f"{scorer.name} gave {score.value}")
    return score
