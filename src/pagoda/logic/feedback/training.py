"""Training data of what people said: answers to imitate, and pairs of a better and a worse one.

In the conversational forms that TRL reads: ``{"messages": [...]}`` for supervised tuning, ``{"prompt", "chosen",
"rejected"}`` for preferences. What a reviewer decided stands above what a user said of the same request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pagoda.logic.feedback.book import FeedbackBook
from pagoda.logic.feedback.complaints import said
from pagoda.logic.reviews.book import ReviewBook

Form: TypeAlias = Literal["sft", "preference"]


@dataclass(frozen=True, slots=True)
class Example:
    """A request with the answer that people stand for, and the one they replaced."""

    request_id: str
    prompt: Mapping[str, Any] | None
    good: str
    bad: str | None
    """As far as it was kept."""
    replaced: bool
    """The good answer stands in another one's place."""


@dataclass(frozen=True, slots=True)
class Export:
    """Rows for training, and how many could not be made since nobody kept what was said."""

    rows: tuple[dict[str, Any], ...]
    without_text: int


async def export(feedback: FeedbackBook, reviews: ReviewBook, team: str, form: Form) -> Export:
    """A team's training data in a form."""
    found: dict[str, Example] = {}
    for record, content in await feedback.corrections(team):
        prompt, answer = said(record, content)
        found[record.subject] = Example(record.subject, prompt, record.correction or "", answer, replaced=True)
    for review in await reviews.judged(team):
        subject = f"request:{review.record.request_id}"
        if (final := review.final) is not None:
            known = found.get(subject)
            asked = review.record.prompt or (None if known is None else known.prompt)
            edited = review.record.state == "edited"
            found[subject] = Example(subject, asked, final, review.record.answer, replaced=edited)
    examples = [example for example in found.values() if form == "sft" or example.replaced]
    rows = [row for example in examples if (row := _row(example, form)) is not None]
    return Export(tuple(rows), len(examples) - len(rows))


def _row(example: Example, form: Form) -> dict[str, Any] | None:
    if example.prompt is None or (form == "preference" and example.bad is None):
        return None
    asked: Sequence[Any] = example.prompt.get("messages", ())
    if "text" in example.prompt:
        asked = [{"role": "user", "content": example.prompt["text"]}]
    good = {"role": "assistant", "content": example.good}
    if form == "sft":
        return {"messages": [*asked, good]}
    return {"prompt": list(asked), "chosen": [good], "rejected": [{"role": "assistant", "content": example.bad}]}
