"""Answers from passages, with citations that are checked: each number stands for exact characters of a document.

A sentence that cites nothing is given the passage that bears it out, where there is one. The words to the models are
packaged prompts, which a team's own of the same names replace. Not here: whether a passage that the model cites
supports the sentence (``logic.trust``).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from pagoda.core.errors import ContextTooLong
from pagoda.core.ports import Inference
from pagoda.core.types import Call, Delta, Json, Started
from pagoda.logic.prompts.asking import ask
from pagoda.logic.prompts.composing import Composed, Composer, Use
from pagoda.logic.prompts.prompt import PromptVersion
from pagoda.logic.retrieval.attribution import Attribution, Grounds
from pagoda.logic.retrieval.citing import Citations, check_citations, numbered
from pagoda.logic.retrieval.closeness import is_close
from pagoda.logic.retrieval.collection import Passage
from pagoda.logic.retrieval.index import Found, Hit, Searcher
from pagoda.logic.retrieval.question import Question
from pagoda.logic.retrieval.quoting import quote
from pagoda.logic.texts.citations import CITATION, without_citations

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
    added: int = 0
    """Sentences that cited nothing and were given the passage that bears them out."""
    query: str
    passages: tuple[Hit, ...]
    """All that the model was shown, in the order of their numbers; without an answer, what came nearest."""
    model: str | None = None
    """``None``: no model was asked."""
    prompt: str | None = None

    def instead(self, text: str, model: str | None) -> SourcedAnswer:
        """The same with another text in place of its own, by another model: one that cites nothing."""
        return replace(self, text=text, model=model, citations=(), removed=0, added=0, prompt=None)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "outcome": self.outcome,
            "answer": self.text,
            "citations": [citation.to_json() for citation in self.citations],
            "citations_removed": self.removed,
            "citations_added": self.added,
            "query": self.query,
            "passages": _numbered_json(self.passages),
            "model": self.model,
            "prompt": self.prompt,
        }


Said: TypeAlias = Sources | Piece | SourcedAnswer
"""An answer is ``Sources``, then its pieces, then the ``SourcedAnswer`` that tells all of it again."""


class Answerer:
    """Answers questions from collections, with one model and certain prompts, through one door."""

    def __init__(
        self,
        searcher: Searcher,
        inference: Callable[[], Inference],
        model: str,
        wording: Wording,
        grounds: Callable[[Sequence[Passage], str], Grounds],
    ) -> None:
        """``grounds``: what sentences may rest on, of the passages shown and the question."""
        self._searcher = searcher
        self._inference = inference
        self._model = model
        self._wording = wording
        self._grounds = grounds

    async def answer(self, question: Question, call: Call) -> SourcedAnswer:
        """An answer, or that there is none. Raises what the search, the prompts and the door raise."""
        async with aclosing(self.stream(question, call)) as said:
            async for each in said:
                if isinstance(each, SourcedAnswer):
                    return each
        raise RuntimeError("an answer ends with itself")

    async def stream(self, question: Question, call: Call) -> AsyncGenerator[Said, None]:
        """An answer as it comes. Raises as ``answer`` does.

        All calls to models are one request of the caller: whichever comes first is counted as it.
        """
        part = replace(call, parent=call.request_id)
        query = await self._standalone(question, call)
        question = replace(question, text=query)
        asked = part if question.history else call
        found = await self._searcher.find(
            question.collection, query, asked, limit=question.limit, refinement=question.refinement
        )
        hits = found.hits
        if not any(_is_close(question, hit, found.model) for hit in hits):
            yield Sources(query=query, passages=tuple(hits))
            yield Piece(question.unknown)
            yield SourcedAnswer(outcome="nothing-close", text=question.unknown, query=query, passages=tuple(hits))
            return
        if question.method == "quote":
            yield Sources(query=query, passages=tuple(hits))
            quoted = await self._quoted(question, found, part)
            yield Piece(quoted.text)
            yield quoted
            return
        parts = await self._parts(question, hits, part)
        shown = tuple(hit for each in parts for hit in each)
        yield Sources(query=query, passages=shown)
        composed = await self._last(question, parts, part)
        passages = [hit.passage for hit in shown]
        reader, told, model = Citations(len(shown)), list[str](), composed.model
        attribution = Attribution(self._grounds(passages, query))
        async with aclosing(self._written(composed, part)) as written:
            async for writer, text in written:
                model = writer
                if piece := await attribution.read(reader.read(text)):
                    told.append(piece)
                    yield Piece(piece)
        if piece := await attribution.read(reader.end()) + await attribution.end():
            told.append(piece)
            yield Piece(piece)
        text = "".join(told)
        numbers = sorted({*reader.numbers, *attribution.numbers})
        yield SourcedAnswer(
            outcome="not-in-documents" if _says(text, question.unknown) else "answered",
            text=text,
            citations=tuple(Citation(number=number, passage=passages[number - 1]) for number in numbers),
            removed=reader.removed,
            added=attribution.added,
            query=query,
            passages=shown,
            model=model,
            prompt=composed.rendered.version.reference,
        )

    async def _quoted(self, question: Question, found: Found, call: Call) -> SourcedAnswer:
        """The nearest sentences, each a citation of itself alone: what stands in brackets within one cites nothing."""
        quotes = await quote(self._inference(), question.text, found, call)
        texts = [f"{without_citations(each.text)} [{number}]" for number, each in enumerate(quotes, 1)]
        return SourcedAnswer(
            outcome="answered" if quotes else "not-in-documents",
            text="\n\n".join(texts) if quotes else question.unknown,
            citations=tuple(Citation(number=number, passage=each) for number, each in enumerate(quotes, 1)),
            query=question.text,
            passages=tuple(found.hits),
        )

    async def _standalone(self, question: Question, call: Call) -> str:
        """The question so that it can be searched for; with no conversation before it, as it is."""
        if not question.history:
            return question.text
        turns = [f"{turn['role']}: {turn['content']}" for turn in question.history[-_TURNS:]]
        values = {"question": question.text, "conversation": "\n".join(turns)}
        part = replace(call, parent=call.request_id)
        composed = await self._compose(question, self._wording.standalone, values, part)
        rewritten = (await ask(composed, self._inference(), call)).text.strip()
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
        """How many of the first passages fit. Raises ``ContextTooLong`` where one alone does not."""
        so_far = _ANSWER if question.method == "refine" and first > 1 else ""

        async def shown(count: int) -> Composed:
            return await self._shown(question, hits[:count], first, call, so_far)

        count = await _most(len(hits), shown)
        if count == 0:
            await self._shown(question, hits[:1], first, call)  # raises what is wrong
        return count

    async def _shown(
        self, question: Question, hits: Sequence[Hit], first: int, call: Call, so_far: str = ""
    ) -> Composed:
        """The prompt that shows some passages, and the answer ``so_far`` if there is one."""
        values = {"question": question.text, "passages": numbered([hit.passage for hit in hits], first)}
        if so_far:
            return await self._compose(question, self._wording.refine, values | {"so_far": so_far}, call)
        version = self._wording.answer
        if any(variable.name == "unknown" for variable in version.prompt.variables):  # a team's own may do without
            values["unknown"] = question.unknown
        return await self._compose(question, version, values, call)

    async def _last(self, question: Question, parts: Sequence[Sequence[Hit]], call: Call) -> Composed:
        """The prompt of the answer; other parts are asked before. Where none of these tells, it is the last one's."""
        if len(parts) == 1:
            return await self._shown(question, parts[0], 1, call)
        count = sum(len(part) for part in parts)
        answers: list[str] = []
        first = 1
        for part in parts:
            so_far = answers[-1] if answers and question.method == "refine" else ""
            last = first + len(part) > count
            composed = await self._shown(question, part, first, call, so_far)
            if last and (question.method == "refine" or not answers):
                return composed
            first += len(part)
            text, _, _ = check_citations((await ask(composed, self._inference(), call)).text, count)
            if text and not _says(text, question.unknown):
                answers.append(text)
        return await self._combined(question, answers, count, call)

    async def _combined(self, question: Question, answers: list[str], count: int, call: Call) -> Composed:
        """The prompt that combines answers, which cite passages 1 to ``count``.

        Those that do not fit at once are combined in groups first, and what comes of these again.
        Raises ``ContextTooLong`` where no two fit.
        """

        async def shown(some: Sequence[str]) -> Composed:
            values = {"question": question.text, "answers": "\n\n".join(some)}
            return await self._compose(question, self._wording.combine, values, call)

        async def group(begin: int) -> list[str]:
            """As many answers as fit, from one on; it alone where no two do."""
            fits = await _most(len(answers) - begin, lambda number: shown(answers[begin : begin + number]))
            return answers[begin : begin + max(fits, 1)]

        while len(first := await group(0)) < len(answers):
            rounded: list[str] = []
            begin = 0
            while begin < len(answers):
                some = await group(begin) if begin else first
                begin += len(some)
                if len(some) > 1:
                    text, _, _ = check_citations((await ask(await shown(some), self._inference(), call)).text, count)
                    some = [text] if text else some[:1]
                rounded += some
            if len(rounded) == len(answers):
                break
            answers = rounded
        return await shown(answers)

    async def _compose(
        self, question: Question, version: PromptVersion, values: Mapping[str, Json], call: Call
    ) -> Composed:
        use = Use(version=version, values=values, model=self._model, language=question.language)
        return await Composer(self._inference(), "").compose(use, call)

    async def _written(self, composed: Composed, call: Call) -> AsyncGenerator[tuple[str, str], None]:
        """Who writes, and more of the text. Samples that are voted on are there at once."""
        version = composed.rendered.version
        if version.prompt.techniques.self_consistency is not None:
            given = await ask(composed, self._inference(), call)
            yield given.model, given.text
            return
        call, model = replace(call, prompt=version.reference), composed.model
        async with aclosing(self._inference().complete(composed.generation(), call)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Started):
                    model = event.model
                elif isinstance(event, Delta):
                    yield model, event.text


async def _most(count: int, shown: Callable[[int], Awaitable[Composed]]) -> int:
    """How many of ``count`` the model's context holds, found by halving."""

    async def fits(number: int) -> bool:
        try:
            await shown(number)
        except ContextTooLong:
            return False
        return True

    if await fits(count):
        return count
    most, too_many = 0, count
    while too_many - most > 1:
        middle = (most + too_many) // 2
        if await fits(middle):
            most = middle
        else:
            too_many = middle
    return most


def _is_close(question: Question, hit: Hit, model: str) -> bool:
    return hit.similarity is not None and is_close(question, hit.passage.text, hit.similarity, model)


def _numbered_json(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    return [{"number": number, **hit.to_json()} for number, hit in enumerate(hits, 1)]


def _says(text: str, unknown: str) -> bool:
    """Whether an answer is that there is none: it says so, and cites nothing for what it may say beside."""
    told, wanted = CITATION.sub("", text).strip(" \n.。").lower(), unknown.rstrip(".。").lower()
    return told == wanted or (wanted in told and CITATION.search(text) is None)
