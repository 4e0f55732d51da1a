"""Exams of collections: what a run of the kind ``retrieval-exam`` does. What was asked before it was stopped stays."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pagoda.application.retrieving import Retrieval, home_retrieval
from pagoda.application.sheet import Row, Sheet
from pagoda.core.errors import Conflict, ContextTooLong, Rejected
from pagoda.core.runs import RunContext
from pagoda.core.types import PRIORITIES, Call, Json
from pagoda.logic.evaluation.dataset import check_digest, digest_of
from pagoda.logic.prompts.index import PromptIndex
from pagoda.logic.retrieval.book import CollectionBook
from pagoda.logic.retrieval.collection import Collection
from pagoda.logic.retrieval.exam import ExamQuestion, read_exam
from pagoda.logic.retrieval.marking import Mark, answer_figures, mark, search_figures
from pagoda.logic.retrieval.question import MODES, MOST_HITS, Method, Question

KIND = "retrieval-exam"
_Ask = Callable[[ExamQuestion], Awaitable[Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """A run's config. A collection that has changed, or another file, is another exam."""

    team: str
    collection: str
    collection_id: str
    revision: int
    data: str
    digest: str
    """Of the data."""
    answers: bool = False
    """Whether answers are asked for too, and not passages alone."""
    method: Method = "auto"
    model: str | None = None
    floor: float | None = None
    limit: int = 5
    """Passages that an answer is given from."""
    parallel: int = 4


async def plan_exam(book: CollectionBook, team: str, name: str, data: str, **wishes: Any) -> Exam:
    """The exam of a collection by the questions of a file. Raises ``InvalidRequest`` and ``NotFound`` before a run."""
    collection = await book.get(team, name)
    await _questions(book, collection, data)
    digest = await asyncio.to_thread(digest_of, data)
    return Exam(
        team=team,
        collection=collection.name,
        collection_id=collection.id,
        revision=collection.revision,
        data=data,
        digest=digest,
        **wishes,
    )


async def _questions(book: CollectionBook, collection: Collection, data: str) -> list[ExamQuestion]:
    sources = {row.source for row in await book.documents(collection)}
    return await asyncio.to_thread(read_exam, data, sources)


async def run_exam(context: RunContext) -> Mapping[str, Json]:
    """Ask what was not asked yet, and give the figures. Raises ``Conflict`` where the collection or file changed."""
    config: dict[str, Any] = dict(context.config)
    exam = Exam(**config)
    await asyncio.to_thread(check_digest, exam.data, exam.digest)
    async with home_retrieval(context.settings, os.environ) as (retrieval, prompts):
        collection = await retrieval.book.get(exam.team, exam.collection)
        if (collection.id, collection.revision) != (exam.collection_id, exam.revision):
            raise Conflict(
                f"The collection {exam.collection} is not what it was when this exam began; begin a new one."
            )
        questions = await _questions(retrieval.book, collection, exam.data)
        sitting = _Sitting(exam, retrieval, prompts, context)
        told = [each for each in questions if each.answerable]
        found = await sitting.ask("searching", told, sitting.search)
        figures: dict[str, Json] = {
            "questions": len(told),
            "unanswerable": len(questions) - len(told),
            "search": search_figures([row.get("ranks", dict.fromkeys(MODES, 0)) for row in found]),
            "failed": sum("error" in row for row in found),
        }
        if exam.answers:
            rows = await sitting.ask("answering", questions, sitting.answer)
            figures["answers"] = answer_figures([Mark(**row["mark"]) for row in rows if "mark" in row])
            figures["answers_failed"] = sum("error" in row for row in rows)
    return figures


class _Sitting:
    """The asking of an exam's questions."""

    def __init__(self, exam: Exam, retrieval: Retrieval, prompts: PromptIndex, context: RunContext) -> None:
        self._exam = exam
        self._retrieval = retrieval
        self._prompts = prompts
        self._context = context

    async def ask(self, stage: str, questions: Sequence[ExamQuestion], work: _Ask) -> list[Row]:
        """A row for each question; of one that cannot be asked it says why."""

        async def one(question: ExamQuestion) -> Row:
            try:
                return await work(question)
            except (ContextTooLong, Rejected) as error:  # of this question; others are of all, and stop the run
                return {"error": error.message}

        sheet = Sheet(self._context, questions, lambda question: question.id, stage=stage, file=f"{stage}.jsonl")
        return await sheet.fill(one, self._exam.parallel)

    async def search(self, question: ExamQuestion) -> Row:
        """The rank of the first right passage, by method; 0: not among as many as a search gives."""
        ranks: dict[str, Json] = {}
        call = self._call()
        for mode in MODES:
            hits = await self._retrieval.searcher.search(
                self._exam.collection, question.text, call, limit=MOST_HITS, mode=mode
            )
            ranks[mode] = question.rank([hit.passage for hit in hits])
        return {"ranks": ranks}

    async def answer(self, question: ExamQuestion) -> Row:
        """An answer, and what is to be said of it."""
        exam, call = self._exam, self._call()
        answerer = await self._retrieval.answerer(self._prompts, call, exam.model)
        asked = Question(
            text=question.text, collection=exam.collection, limit=exam.limit, floor=exam.floor, method=exam.method
        )
        answer = await answerer.answer(asked, call)
        places = [
            {"source": each.passage.source, "start": each.passage.start, "end": each.passage.end}
            for each in answer.citations
        ]
        return {
            "outcome": answer.outcome,
            "answer": answer.text,
            "citations": places,
            "model": answer.model,
            "mark": asdict(mark(question, answer)),
        }

    def _call(self) -> Call:
        return Call(tenant=self._exam.team, purpose="evaluation", priority=PRIORITIES["batch"])
