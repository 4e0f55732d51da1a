"""Answers without a model: the sentences of the found passages that come nearest to the question, word for word.

Nothing is invented, and each sentence is its own citation. Not here: whether they answer the question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pagoda.core.ports import Inference
from pagoda.core.types import Call, Embed
from pagoda.logic.retrieval.collection import Passage
from pagoda.logic.retrieval.lexical import LexicalIndex
from pagoda.logic.retrieval.ranking import rank
from pagoda.logic.retrieval.splitting import Span

_MOST = 3  # sentences
_BEHIND = 1.0  # score that a sentence may be behind the best one
_MOST_SENTENCES = 200  # that are compared
_END = re.compile(r"[。！？…]+[”’」』）)\]\"']*|[.!?]+[”’)\]\"']*(?=\s|$)|\n\s*\n|\n(?=\s*(?:[-*#|>]|\d+\.))")
_LETTER = re.compile(r"\w")


def sentences(text: str) -> list[Span]:
    """The sentences of a text in order, without blanks around them: every letter is in exactly one."""
    spans, begin = [], 0
    for end in (*(match.end() for match in _END.finditer(text)), len(text)):
        piece = text[begin:end]
        if _LETTER.search(piece):
            start = begin + len(piece) - len(piece.lstrip())
            spans.append(Span(start, begin + len(piece.rstrip())))
            begin = end
    return spans


async def quote(door: Inference, model: str, question: str, passages: Sequence[Passage], call: Call) -> list[Passage]:
    """The nearest sentences of the passages, each as a passage of its own, in their order. Raises as the door does.

    ``model`` embeds; meaning and words count as in a search of passages.
    """
    found: dict[tuple[str, int], Passage] = {}
    for passage in passages:
        for span in sentences(passage.text):
            start = passage.start + span.start
            text = passage.text[span.start : span.end]
            sentence = replace(passage, start=start, end=passage.start + span.end, text=text)
            found.setdefault((passage.document, start), sentence)  # passages overlap
    quotes = list(found.values())[:_MOST_SENTENCES]
    texts = tuple(each.text for each in quotes)
    asked = (await door.embed(Embed(model=model, inputs=(question,), kind="query"), call)).vectors[0]
    vectors = (await door.embed(Embed(model=model, inputs=texts, kind="passage"), call)).vectors
    similarities = np.frombuffer(b"".join(vectors), "<f4").reshape(len(texts), -1) @ np.frombuffer(asked, "<f4")
    ranked = rank(similarities, LexicalIndex(texts).scores(question), _MOST)
    return [quotes[place] for place in sorted(place for place, score in ranked if score >= ranked[0][1] - _BEHIND)]
