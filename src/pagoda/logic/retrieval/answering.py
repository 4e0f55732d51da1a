"""Answers from passages, with citations that are checked: each number stands for exact characters of a document.

The words to the model are the packaged prompt ``answer-with-sources``, which a team's own of that name replaces. Not
here: whether the cited passage supports the sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pagoda.core.errors import ContextTooLong, InvalidRequest
from pagoda.core.ports import Inference
from pagoda.core.types import Call
from pagoda.logic.prompts.asking import ask
from pagoda.logic.prompts.composing import Composed, Composer, Use
from pagoda.logic.prompts.prompt import PromptVersion
from pagoda.logic.retrieval.collection import Passage
from pagoda.logic.retrieval.index import Hit, Searcher

PROMPT = "answer-with-sources"
FLOOR = 0.8
"""Cosine of multilingual E5, under which no passage is close enough to a question to be worth asking the model."""

Outcome = Literal["answered", "nothing-close", "not-in-documents"]

_CITATION = re.compile(r"[ \t]*[\[【［][ \t]*(\d{1,6}(?:[ \t]*[,，、;][ \t]*\d{1,6})*)[ \t]*[\]】］]")
_UNKNOWN = {"en": "The documents do not say.", "zh": "文档中没有说明。"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """What ``[number]`` in an answer stands for."""

    number: int
    passage: Passage

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {"number": self.number, **self.passage.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcedAnswer:
    """An answer and what it rests on."""

    outcome: Outcome
    text: str
    citations: tuple[Citation, ...]
    """Those that stand in the text, by number."""
    removed: int
    """Citations of passages that do not exist, which were taken out of the text."""
    passages: tuple[Hit, ...]
    """All that the model was shown, in the order of their numbers; without an answer, what came nearest."""
    model: str | None
    """``None``: no model was asked."""
    prompt: str | None

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "outcome": self.outcome,
            "answer": self.text,
            "citations": [citation.to_json() for citation in self.citations],
            "citations_removed": self.removed,
            "passages": [{"number": number, **hit.to_json()} for number, hit in enumerate(self.passages, 1)],
            "model": self.model,
            "prompt": self.prompt,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a collection, and how."""

    text: str
    collection: str
    version: PromptVersion
    model: str
    limit: int = 5
    """Passages to show to the model, as far as they fit."""
    floor: float = FLOOR
    """Cosine that the nearest passage must reach."""

    @property
    def language(self) -> str:
        """Of the words around the question, after the question's own."""
        return "zh" if any("\u4e00" <= letter <= "\u9fff" for letter in self.text) else "en"


class Answerer:
    """Answers questions from collections, through one door."""

    def __init__(self, searcher: Searcher, inference: Callable[[], Inference]) -> None:
        self._searcher = searcher
        self._inference = inference

    async def answer(self, question: Question, call: Call) -> SourcedAnswer:
        """An answer, or that there is none. Raises what the search, the prompt and the door raise."""
        hits = await self._searcher.search(question.collection, question.text, call, limit=question.limit)
        nearest = max((hit.similarity for hit in hits if hit.similarity is not None), default=-1.0)
        unknown = _UNKNOWN[question.language]
        if not hits or nearest < question.floor:
            return SourcedAnswer(
                outcome="nothing-close",
                text=unknown,
                citations=(),
                removed=0,
                passages=tuple(hits),
                model=None,
                prompt=None,
            )
        composed, shown = await self._compose(question, hits, call)
        given = await ask(composed, self._inference(), call)
        text, numbers, removed = check_citations(given.text.strip(), len(shown))
        return SourcedAnswer(
            outcome="not-in-documents" if _says(text, unknown) else "answered",
            text=text,
            citations=tuple(Citation(number=number, passage=shown[number - 1].passage) for number in numbers),
            removed=removed,
            passages=tuple(shown),
            model=given.model,
            prompt=question.version.reference,
        )

    async def _compose(self, question: Question, hits: Sequence[Hit], call: Call) -> tuple[Composed, Sequence[Hit]]:
        """The prompt with as many of the best passages as the model's context holds, whole ones only."""
        composer = Composer(self._inference(), "")
        for count in range(len(hits), 0, -1):
            use = Use(
                version=question.version,
                values={"question": question.text, "passages": _numbered(hits[:count])},
                model=question.model,
                language=question.language,
            )
            try:
                return await composer.compose(use, call), hits[:count]
            except ContextTooLong:
                if count == 1:
                    raise
        raise InvalidRequest("There is no passage to answer from.")


def check_citations(text: str, count: int) -> tuple[str, tuple[int, ...], int]:
    """The text with citations of passages 1 to ``count`` alone, each as ``[n]``; these; how many others there were."""
    cited: set[int] = set()
    removed = 0

    def keep(found: re.Match[str]) -> str:
        nonlocal removed
        numbers = [int(number) for number in re.findall(r"\d+", found[1])]
        real = [number for number in dict.fromkeys(numbers) if 1 <= number <= count]
        removed += sum(not 1 <= number <= count for number in numbers)
        cited.update(real)
        space = found[0][: len(found[0]) - len(found[0].lstrip())] if real else ""
        return space + "".join(f"[{number}]" for number in real)

    checked = _CITATION.sub(keep, text)
    return checked, tuple(sorted(cited)), removed


def _numbered(hits: Sequence[Hit]) -> str:
    return "\n\n".join(f"[{number}] {hit.passage.text.strip()}" for number, hit in enumerate(hits, 1))


def _says(text: str, unknown: str) -> bool:
    """Whether an answer is that there is none, whatever stands around it."""
    return unknown.rstrip(".。").lower() in text.lower()
