"""Answers from documents: do they hold the right words, what do they cite, and do they stay away where nothing is told.

Natural Questions (open book): ``QUESTIONS`` questions with an odd SHA-256, asked of the pool of their own texts, by
``METHODS`` (``quote``, or ``auto`` for the default chat model). An answer is *exact* if it is one of the listed answers
after SQuAD's normalisation (Rajpurkar et al., 2016; Chinese by characters), and *holds* one if that stands in it. Of
each sentence and each span that it cites the local judge (``pagoda trust``) says whether the one bears out the other:
*precision* is the share of cited spans that do, *recall* the share of sentences of which a span does (as in Gao et al.,
"Enabling Large Language Models to Generate Text with Citations", 2023, but that spans count alone there, not joined); a
sentence that cites nothing counts for recall alone. QuAC: questions that their section answers, and such that it does
not (``CANNOTANSWER``), as many of each; both kinds of error of staying away. Read from ``PAGODA_PUBLIC_DATA`` or
``../shared/data``.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ground import settings
from benchmarks.retrieval import data, is_held_out, open_book
from pagoda.application.platform import Platform
from pagoda.core.types import Call
from pagoda.logic.evaluation.overlap import words_of
from pagoda.logic.retrieval.answering import SourcedAnswer
from pagoda.logic.retrieval.collection import Passage, Plan
from pagoda.logic.retrieval.question import Question
from pagoda.logic.texts.citations import CITATION, LED, ranges
from pagoda.logic.texts.sentences import sentences
from pagoda.logic.trust.claims import split_claims
from pagoda.logic.trust.subject import Source

QUESTIONS = int(os.environ.get("QUESTIONS", "100"))
METHODS = os.environ.get("METHODS", "quote").split(",")
AT_ONCE = 4
Asked = tuple[str, str, list[str]]
"""Text, question, and the answers that will do."""


def quac() -> tuple[list[Asked], list[Asked]]:
    """Questions that their section answers, and others."""
    told: list[Asked] = []
    untold: list[Asked] = []
    for line in (data() / "quac.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        text, _, rest = row["query"].rpartition("\n\nQuestion: ")
        section = text.split("\n\nQuestion: ")[0]
        asked = (section, rest.removesuffix("\nAnswer:").strip(), [row["answer"]])
        (untold if row["answer"] == "CANNOTANSWER" else told).append(asked)
    half = QUESTIONS // 2
    return odd(told)[:half], odd(untold)[:half]


def odd(asked: Sequence[Asked]) -> list[Asked]:
    return [each for each in asked if is_held_out(each[1])][:QUESTIONS]


async def measure() -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform(settings(Path(folder) / "home", {}), os.environ)
        await platform.start()
        try:
            asked = odd(open_book())
            await take(platform, "nq", [text for text, _, _ in asked])
            told, untold = quac()
            await take(platform, "quac", [text for text, _, _ in (*told, *untold)])
            for method in METHODS:
                answers = await ask_all(platform, "nq", asked, method)
                figures[method] = {
                    "questions": len(asked),
                    **await quality(platform, asked, answers),
                    "quac_told_but_stayed_away": await away(platform, told, method),
                    "quac_not_told_and_stayed_away": await away(platform, untold, method),
                }
        finally:
            await platform.stop()
    return figures


async def take(platform: Platform, name: str, texts: Sequence[str]) -> None:
    collection = await platform.retrieval.book.ensure("local", name, Plan())
    for number, text in enumerate(dict.fromkeys(texts)):
        await platform.retrieval.ingestion.take_upload(
            collection, f"{number}.txt", text.encode(), Call(purpose="ingestion")
        )


async def ask(platform: Platform, name: str, question: str, method: Any) -> SourcedAnswer:
    answerer = await platform.retrieval.answerer(platform.prompts, Call())
    return await answerer.answer(Question(text=question, collection=name, method=method), Call())


async def ask_all(platform: Platform, name: str, asked: Sequence[Asked], method: Any) -> list[SourcedAnswer]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(question: str) -> SourcedAnswer:
        async with turn:
            return await ask(platform, name, question, method)

    return list(await asyncio.gather(*(one(question) for _, question, _ in asked)))


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence of an answer, and the passages that it cites."""

    text: str
    cited: tuple[Passage, ...]


def said(answer: SourcedAnswer) -> Iterator[Said]:
    """The sentences of an answer. Citations at the beginning of one belong to the sentence before it."""
    pieces: list[str] = []
    for span in sentences(answer.text):
        piece = answer.text[span.start : span.end]
        if pieces:
            led = LED.match(piece)
            led_to = 0 if led is None else led.end()
            pieces[-1] += piece[:led_to]
            piece = piece[led_to:]
        if CITATION.sub("", piece).strip():
            pieces.append(piece)
    passages = {citation.number: citation.passage for citation in answer.citations}
    for piece in pieces:
        spans = [span for found in CITATION.finditer(piece) for span in ranges(found[0])]
        cited = [number for number in passages if any(first <= number <= last for first, last in spans)]
        yield Said(CITATION.sub("", piece).strip(), tuple(passages[number] for number in cited))


def normal(text: str) -> list[str]:
    """A text's words as SQuAD compares them: no capitals, punctuation or articles; Chinese characters one by one."""
    kept = (letter for letter in text.lower() if not unicodedata.category(letter).startswith("P"))
    return [word for word in words_of("".join(kept)) if word not in ("a", "an", "the")]


async def quality(platform: Platform, asked: Sequence[Asked], answers: Sequence[SourcedAnswer]) -> dict[str, Any]:
    """Shares of all questions, of all sentences of the answers that say something, and of the spans these cite."""
    given = [
        (rights, answer) for (_, _, rights), answer in zip(asked, answers, strict=True) if answer.outcome == "answered"
    ]
    exact = sum(normal(CITATION.sub(" ", answer.text)) in map(normal, rights) for rights, answer in given)
    holds = sum(any(right.lower() in answer.text.lower() for right in rights) for rights, answer in given)
    borne_out: list[list[bool]] = []
    for _, answer in given:
        for sentence in said(answer):
            if any(claim.checkable for claim in split_claims(sentence.text)):
                borne_out.append([await bears_out(platform, passage, sentence.text) for passage in sentence.cited])
    spans = [each for cited in borne_out for each in cited]
    return {
        "answered": round(len(given) / len(asked), 3),
        "exact": round(exact / len(asked), 3),
        "holds_the_answer": round(holds / len(asked), 3),
        "cites_nothing": share([not answer.citations for _, answer in given]),
        "citations_removed": sum(answer.removed for _, answer in given),
        "sentences": len(borne_out),
        "spans_cited": len(spans),
        "citation_precision": share(spans),
        "citation_recall": share([any(cited) for cited in borne_out]),
    }


async def bears_out(platform: Platform, passage: Passage, sentence: str) -> bool:
    """Whether the local judge finds all that a sentence claims in a passage."""
    checks = await platform.trust.check(sentence, [Source(name=passage.source, text=passage.text)], Call())
    return checks.supported is True


def share(verdicts: Sequence[bool]) -> float | None:
    """``None``: there is nothing to take a share of."""
    return round(sum(verdicts) / len(verdicts), 3) if verdicts else None


async def away(platform: Platform, asked: Sequence[Asked], method: str) -> float:
    answers = await ask_all(platform, "quac", asked, method)
    return round(sum(answer.outcome != "answered" for answer in answers) / len(asked), 3)
