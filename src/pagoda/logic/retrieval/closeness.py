"""Whether a passage is near enough to a question to be worth asking a model.

The floors are of multilingual E5; of other models nothing is known, and all that is found counts as close. E5's cosines
lie close together, and higher where one or both are Chinese, related or not, so that each pair of languages has a floor
of its own (docs/decisions/0046). Not here: whether the passage answers the question.
"""

from __future__ import annotations

from pagoda.logic.quality.rules import is_chinese
from pagoda.logic.retrieval.collection import DEFAULT_MODEL
from pagoda.logic.retrieval.question import Question

FLOOR = 0.8
CHINESE_FLOOR = 0.85
"""Of a Chinese question and a Chinese passage."""
CROSSED_FLOOR = 0.83
"""Of a Chinese question and a passage in another language."""


def is_close(question: Question, passage: str, cosine: float, model: str) -> bool:
    """Whether a passage with this cosine of a model may tell; a ``floor`` of the question's own counts for all."""
    if question.floor is not None:
        return cosine >= question.floor
    if model != DEFAULT_MODEL:
        return True
    if cosine < FLOOR or question.language != "zh":
        return cosine >= FLOOR
    return cosine >= (CHINESE_FLOOR if is_chinese(passage) else CROSSED_FLOOR)
