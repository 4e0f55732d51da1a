"""How often the right text is among the first five: by meaning, by words, and both, in English and Chinese.

Natural Questions (open book) and CMRC 2018 (trial), read from ``PAGODA_PUBLIC_DATA`` or ``../shared/data``. Only a part
is taken, so that it ends in minutes on two cores: the first ``TEXTS`` texts of each and their questions with an odd
SHA-256 (even ones are for choosing). Each text is a document of its own; a question counts if a passage of its text is
found. Also how near the nearest passage is for questions that the collection answers and for those of the other set.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.ground import settings
from pagoda.application.platform import Platform
from pagoda.application.retrieving import Retrieval
from pagoda.core.types import Call
from pagoda.logic.retrieval.collection import Plan
from pagoda.logic.retrieval.question import FLOOR, MODES
from pagoda.logic.retrieval.splitting import Splitter

TEXTS = int(os.environ.get("TEXTS", "120"))
Asked = tuple[int, str]
"""Number of the text that answers, and the question."""


def data() -> Path:
    return Path(os.environ.get("PAGODA_PUBLIC_DATA", "../shared/data")) / "rag"


def natural_questions() -> tuple[list[str], list[Asked]]:
    texts: list[str] = []
    asked: list[Asked] = []
    for line in (data() / "nq_open_book.jsonl").read_text(encoding="utf-8").splitlines():
        text, _, rest = json.loads(line)["context"].removeprefix("Context: ").rpartition("\n\nQuestion: ")
        if text not in texts:
            texts.append(text)
        asked.append((texts.index(text), rest.removesuffix("\nAnswer:").strip()))
    return texts, asked


def cmrc() -> tuple[list[str], list[Asked]]:
    texts: list[str] = []
    asked: list[Asked] = []
    for article in json.loads((data() / "cmrc2018_trial.json").read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            texts.append(paragraph["context"])
            asked += [(len(texts) - 1, each["question"]) for each in paragraph["qas"]]
    return texts, asked


def held_out(asked: Sequence[Asked]) -> list[Asked]:
    odd = [each for each in asked if hashlib.sha256(each[1].encode()).digest()[-1] % 2]
    return [each for each in odd if each[0] < TEXTS]


async def measure() -> dict[str, Any]:
    sets = {"nq": natural_questions(), "cmrc": cmrc()}
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform(settings(Path(folder) / "home", {}), os.environ)
        await platform.start()
        retrieval = Retrieval(platform.settings, platform.records, lambda: platform.inference)
        try:
            for name, (texts, _) in sets.items():
                figures[name] = await take(retrieval, name, texts[:TEXTS], Path(folder))
            for name, (_, asked) in sets.items():
                questions = held_out(asked)
                figures[name] |= await recall(retrieval, name, questions)
                other = next(each for each in sets if each != name)
                figures[name]["strangers_let_through"] = await close(retrieval, other, questions)
        finally:
            await platform.stop()
    figures["splitting_mb_per_second"] = splitting(sets["nq"][0] + sets["cmrc"][0])
    return figures


async def take(retrieval: Retrieval, name: str, texts: Sequence[str], folder: Path) -> dict[str, Any]:
    place = folder / name
    place.mkdir()
    for number, text in enumerate(texts):
        (place / f"{number}.txt").write_text(text, encoding="utf-8")
    collection = await retrieval.book.ensure("local", name, Plan())
    began = time.perf_counter()
    report = await retrieval.ingestion.take(collection, [place], Call(purpose="ingestion"), lambda *_: None)
    seconds = time.perf_counter() - began
    return {
        "texts": len(texts),
        "chunks": report.chunks,
        "chunks_per_second": round(report.chunks / seconds, 1),
    }


async def recall(retrieval: Retrieval, name: str, questions: Sequence[Asked]) -> dict[str, Any]:
    figures: dict[str, Any] = {"questions": len(questions)}
    for mode in MODES:
        found = 0
        for number, question in questions:
            hits = await retrieval.searcher.search(name, question, Call(), limit=5, mode=mode)
            found += any(Path(hit.passage.source).stem == str(number) for hit in hits)
        figures[f"recall_at_5_{mode}"] = round(found / len(questions), 3)
    figures["own_let_through"] = await close(retrieval, name, questions)
    return figures


async def close(retrieval: Retrieval, name: str, questions: Sequence[Asked]) -> float:
    """The share of questions whose nearest passage passes the floor."""
    passed = 0
    for _, question in questions:
        hit = (await retrieval.searcher.search(name, question, Call(), limit=1, mode="dense"))[0]
        passed += hit.score >= FLOOR
    return round(passed / len(questions), 3)


def splitting(texts: Sequence[str]) -> float:
    """MB of UTF-8 a second."""
    text = "\n\n".join(texts)
    text *= 10_000_000 // len(text.encode()) + 1
    began = time.perf_counter()
    Splitter().split(text)
    return round(len(text.encode()) / 1e6 / (time.perf_counter() - began), 1)
