"""Answers without a model: the sentences of the found passages that come nearest to the question, word for word.

Nothing is invented, and each sentence is its own citation. Not here: whether they answer the question.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from pagoda.core.ports import Inference
from pagoda.core.types import Call, Embed
from pagoda.logic.retrieval.collection import Passage
from pagoda.logic.retrieval.index import Found
from pagoda.logic.retrieval.lexical import LexicalIndex
from pagoda.logic.retrieval.ranking import cosines, rank
from pagoda.logic.retrieval.splitting import Span
from pagoda.logic.texts.sentences import sentences

_MOST = 3  # sentences
_BEHIND = 1.0  # score that a sentence may be behind the best one
_MOST_SENTENCES = 200  # that are compared
_LETTER = re.compile(r"\w")


def letter_spans(text: str) -> list[Span]:
    """The sentences of a text in order, without blanks around them: every letter is in exactly one."""
    spans, begin = [], 0
    for sentence in sentences(text):
        if _LETTER.search(text, sentence.start, sentence.end):
            piece = text[begin : sentence.end]
            start = begin + len(piece) - len(piece.lstrip())
            spans.append(Span(start, begin + len(piece.rstrip())))
            begin = sentence.end
    return spans


async def quote(door: Inference, question: str, found: Found, call: Call) -> list[Passage]:
    """The sentences of what was found that are nearest to the question, each as a passage of its own, in their order.

    Meaning and words count as in a search of passages. None where no passage has a letter. Raises as the door does.
    """
    held: dict[tuple[str, int], Passage] = {}
    for passage in (hit.passage for hit in found.hits):
        for span in letter_spans(passage.text):
            start = passage.start + span.start
            text = passage.text[span.start : span.end]
            sentence = replace(passage, start=start, end=passage.start + span.end, text=text)
            held.setdefault((passage.document, start), sentence)  # passages overlap
    quotes = list(held.values())[:_MOST_SENTENCES]
    if not quotes or found.question is None:
        return []
    texts = tuple(each.text for each in quotes)
    vectors = (await door.embed(Embed(model=found.model, inputs=texts, kind="passage"), call)).vectors
    rows = np.frombuffer(b"".join(vectors), "<f4").reshape(len(texts), -1)
    ranked = rank(cosines(rows, found.question), LexicalIndex(texts).scores(question), _MOST)
    return [quotes[place] for place in sorted(place for place, score in ranked if score >= ranked[0][1] - _BEHIND)]
