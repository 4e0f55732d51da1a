"""Answers from passages, with citations that are checked: each number stands for exact characters of a document.

The words to the models are packaged prompts, which a team's own of the same names replace. Not here: whether the cited
passage supports the sentence (``logic.trust``).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from pagoda.core.errors import ContextTooLong
from pagoda.core.ports import Inference
from pagoda.core.types import Call, Delta, Json
from pagoda.logic.prompts.asking import ask
from pagoda.logic.prompts.composing import Composed, Composer, Use
from pagoda.logic.prompts.prompt import PromptVersion
from pagoda.logic.retrieval.citing import Citations, check_citations, numbered
from pagoda.logic.retrieval.collection import Passage
from pagoda.logic.retrieval.index import Hit, Searcher
from pagoda.logic.retrieval.question import Question
from pagoda.logic.retrieval.quoting import quote

Outcome = Literal["answered", "nothing-close", "not-in-documents"]

_LONGEST_QUESTION = 1000  # characters of a rewritten one: what is longer is no question
_ANSWER = "answer " * 256  # as long as one may be, to be refined
_TURNS = 6  # of a conversation, that a follow-up question is rewritten from


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """The prompts of an answer."""

    answer: PromptVersion
    refine: PromptVersion
    combine: PromptVersion
    standalone: PromptVersion


WORDING: Mapping[str, str] = {
    "answer": "answer-with-sources",
    "refine": "refine-answer",
    "combine": "combine-answers",
    "standalone": "standalone-question",
}
"""Their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """What ``[number]`` in an answer stands for."""

    number: int
    passage: Passage

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {"number": self.number, **self.passage.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a model will be shown, before it answers."""

    query: str
    """That was searched for: the question, or a follow-up question rewritten to stand alone."""
    passages: tuple[Hit, ...]

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {"query": self.query, "passages": _numbered_json(self.passages)}


@dataclass(frozen=True, slots=True)
class Piece:
    """More text of the answer; its citations are checked."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcedAnswer:
    """An answer and what it rests on."""

    outcome: Outcome
    text: str
    citations: tuple[Citation, ...] = ()
    """Those that stand in the text, by number."""
    removed: int = 0
    """Citations of passages that do not exist, which were taken out of the text."""
    query: str
    passages: tuple[Hit, ...]
    """All that the model was shown, in the order of their numbers; without an answer, what came nearest."""
    model: str | None = None
    """``None``: no model was asked."""
    prompt: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "outcome": self.outcome,
            "answer": self.text,
            "citations": [citation.to_json() for citation in self.citations],
            "citations_removed": self.removed,
            "query": self.query,
            "passages": _numbered_json(self.passages),
            "model": self.model,
            "prompt": self.prompt,
        }


Said: TypeAlias = Sources | Piece | SourcedAnswer
"""An answer is ``Sources``, then its pieces, then the ``SourcedAnswer`` that tells all of it again."""


class Answerer:
    """Answers questions from collections, with one model and certain prompts, through one door."""

    def __init__(self, searcher: Searcher, inference: Callable[[], Inference], model: str, wording: Wording) -> None:
        self._searcher = searcher
        self._inference = inference
        self._model = model
        self._wording = wording

    async def answer(self, question: Question, call: Call) -> SourcedAnswer:
        """An answer, or that there is none. Raises what the search, the prompts and the door raise."""
        async with aclosing(self.stream(question, call)) as said:
            async for each in said:
                if isinstance(each, SourcedAnswer):
                    return each
        raise RuntimeError("an answer ends with itself")

    async def stream(self, question: Question, call: Call) -> AsyncGenerator[Said, None]:
        """An answer as it comes. Raises as ``answer`` does."""
        query = await self._standalone(question, call)
        question = replace(question, text=query)
        hits = await self._searcher.search(
            question.collection, query, call, limit=question.limit, refinement=question.refinement
        )
        nearest = max((hit.similarity for hit in hits if hit.similarity is not None), default=-1.0)
        if not hits or nearest < question.floor:
            yield Sources(query=query, passages=tuple(hits))
            yield Piece(question.unknown)
            yield SourcedAnswer(outcome="nothing-close", text=question.unknown, query=query, passages=tuple(hits))
            return
        if question.method == "quote":
            yield Sources(query=query, passages=tuple(hits))
            quoted = await self._quoted(question, hits, call)
            yield Piece(quoted.text)
            yield quoted
            return
        parts = await self._parts(question, hits, call)
        shown = tuple(hit for part in parts for hit in part)
        yield Sources(query=query, passages=shown)
        composed = await self._last(question, parts, call)
        if composed is None:
            yield Piece(question.unknown)
            yield SourcedAnswer(
                outcome="not-in-documents",
                text=question.unknown,
                query=query,
                passages=shown,
                model=self._model,
                prompt=self._wording.answer.reference,
            )
            return
        reader, told = Citations(len(shown)), list[str]()
        async with aclosing(self._written(composed, call)) as written:
            async for text in written:
                if piece := reader.read(text):
                    told.append(piece)
                    yield Piece(piece)
        if piece := reader.end():
            told.append(piece)
            yield Piece(piece)
        text = "".join(told)
        yield SourcedAnswer(
            outcome="not-in-documents" if _says(text, question.unknown) else "answered",
            text=text,
            citations=tuple(Citation(number=number, passage=shown[number - 1].passage) for number in reader.numbers),
            removed=reader.removed,
            query=query,
            passages=shown,
            model=composed.model,
            prompt=composed.rendered.version.reference,
        )

    async def _quoted(self, question: Question, hits: Sequence[Hit], call: Call) -> SourcedAnswer:
        """The nearest sentences, each a citation of itself alone."""
        model = (await self._searcher.book.get(call.tenant, question.collection)).plan.model
        quotes = await quote(self._inference(), model, question.text, [hit.passage for hit in hits], call)
        return SourcedAnswer(
            outcome="answered",
            text="\n\n".join(f"{each.text} [{number}]" for number, each in enumerate(quotes, 1)),
            citations=tuple(Citation(number=number, passage=each) for number, each in enumerate(quotes, 1)),
            query=question.text,
            passages=tuple(hits),
        )

    async def _standalone(self, question: Question, call: Call) -> str:
        """The question so that it can be searched for; with no conversation before it, as it is."""
        if not question.history:
            return question.text
        turns = [f"{turn['role']}: {turn['content']}" for turn in question.history[-_TURNS:]]
        values = {"question": question.text, "conversation": "\n".join(turns)}
        composed = await self._compose(question, self._wording.standalone, values, call)
        rewritten = (await ask(composed, self._inference(), replace(call, parent=call.request_id))).text.strip()
        return rewritten if 0 < len(rewritten) <= _LONGEST_QUESTION else question.text

    async def _parts(self, question: Question, hits: Sequence[Hit], call: Call) -> list[Sequence[Hit]]:
        """The passages in parts of which each fits the model's context, whole ones only.

        Raises ``ContextTooLong`` where one alone does not.
        """
        parts: list[Sequence[Hit]] = []
        begin = 0
        while begin < len(hits):
            count = await self._fitting(question, hits[begin:], begin + 1, call)
            parts.append(hits[begin : begin + count])
            begin += count
            if question.method == "stuff":
                break
        return parts

    async def _fitting(self, question: Question, hits: Sequence[Hit], first: int, call: Call) -> int:
        """How many of the first passages fit, found by halving."""
        if await self._fits(question, hits, first, call):
            return len(hits)
        fits, too_many = 0, len(hits)
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            if await self._fits(question, hits[:middle], first, call):
                fits = middle
            else:
                too_many = middle
        if fits == 0:
            await self._shown(question, hits[:1], first, call)  # raises what is wrong
        return fits

    async def _fits(self, question: Question, hits: Sequence[Hit], first: int, call: Call) -> bool:
        so_far = _ANSWER if question.method == "refine" and first > 1 else ""
        try:
            await self._shown(question, hits, first, call, so_far)
        except ContextTooLong:
            return False
        return True

    async def _shown(
        self, question: Question, hits: Sequence[Hit], first: int, call: Call, so_far: str = ""
    ) -> Composed:
        """The prompt that shows some passages, and the answer ``so_far`` if there is one."""
        values = {"question": question.text, "passages": numbered([hit.passage for hit in hits], first)}
        if so_far:
            return await self._compose(question, self._wording.refine, values | {"so_far": so_far}, call)
        return await self._compose(question, self._wording.answer, values, call)

    async def _last(self, question: Question, parts: Sequence[Sequence[Hit]], call: Call) -> Composed | None:
        """The prompt of the answer; other parts are asked before. ``None``: no part tells."""
        if len(parts) == 1:
            return await self._shown(question, parts[0], 1, call)
        count = sum(len(part) for part in parts)
        step = replace(call, parent=call.request_id)
        answers: list[str] = []
        first = 1
        for part in parts:
            so_far = answers[-1] if answers and question.method == "refine" else ""
            last = first + len(part) > count
            composed = await self._shown(question, part, first, call, so_far)
            if last and (question.method == "refine" or not answers):
                return composed
            first += len(part)
            text, _, _ = check_citations((await ask(composed, self._inference(), step)).text, count)
            if text and not _says(text, question.unknown):
                answers.append(text)
        if not answers:
            return None
        values = {"question": question.text, "answers": "\n\n".join(answers)}
        return await self._compose(question, self._wording.combine, values, call)

    async def _compose(
        self, question: Question, version: PromptVersion, values: Mapping[str, Json], call: Call
    ) -> Composed:
        use = Use(version=version, values=values, model=self._model, language=question.language)
        return await Composer(self._inference(), "").compose(use, call)

    async def _written(self, composed: Composed, call: Call) -> AsyncGenerator[str, None]:
        call = replace(call, prompt=composed.rendered.version.reference)
        async with aclosing(self._inference().complete(composed.generation(), call)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Delta):
                    yield event.text


def _numbered_json(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    return [{"number": number, **hit.to_json()} for number, hit in enumerate(hits, 1)]


def _says(text: str, unknown: str) -> bool:
    """Whether an answer is that there is none, whatever stands around it."""
    return unknown.rstrip(".。").lower() in text.lower()
