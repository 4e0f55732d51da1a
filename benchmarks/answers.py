"""Answers from documents: do they hold the right words, what do they cite, and do they stay away where nothing is told.

Natural Questions (open book): ``QUESTIONS`` questions with an odd SHA-256, asked of the pool of their own texts, by
``METHODS`` (``quote``, or ``auto`` for the default chat model). An answer *holds* one of the listed answers if that
stands in it; a sentence is *supported* if the local judge (``pagoda trust``) finds it in what the answer cites. QuAC:
questions that their section answers, and such that it does not (``CANNOTANSWER``), as many of each; both kinds of error
of staying away. Read from ``PAGODA_PUBLIC_DATA`` or ``../shared/data``.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.ground import settings
from benchmarks.retrieval import data, is_held_out, open_book
from pagoda.application.platform import Platform
from pagoda.core.errors import InvalidRequest
from pagoda.core.types import Call
from pagoda.logic.retrieval.answering import SourcedAnswer
from pagoda.logic.retrieval.collection import Plan
from pagoda.logic.retrieval.question import Question
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


async def quality(platform: Platform, asked: Sequence[Asked], answers: Sequence[SourcedAnswer]) -> dict[str, Any]:
    """Shares of all questions, and of all sentences of the answers."""
    given = [answer for answer in answers if answer.outcome == "answered"]
    holds = sum(
        any(right.lower() in answer.text.lower() for right in rights)
        for (_, _, rights), answer in zip(asked, answers, strict=True)
        if answer.outcome == "answered"
    )
    sentences = supported = 0
    for answer in given:
        sources = [Source(name=each.passage.source, text=each.passage.text) for each in answer.citations]
        try:
            checks = await platform.trust.check(answer.text, sources or [Source(name="nothing", text="-")], Call())
        except InvalidRequest:  # it says nothing that could be checked
            continue
        telling = [each for each in checks.claims if each.claim.checkable]
        sentences += len(telling)
        supported += sum(each.judgement.verdict == "supported" for each in telling)
    return {
        "answered": round(len(given) / len(asked), 3),
        "holds_the_answer": round(holds / len(asked), 3),
        "cites_nothing": round(sum(not answer.citations for answer in given) / max(len(given), 1), 3),
        "citations_removed": sum(answer.removed for answer in given),
        "sentences_supported": round(supported / max(sentences, 1), 3),
    }


async def away(platform: Platform, asked: Sequence[Asked], method: str) -> float:
    answers = await ask_all(platform, "quac", asked, method)
    return round(sum(answer.outcome != "answered" for answer in answers) / len(asked), 3)
