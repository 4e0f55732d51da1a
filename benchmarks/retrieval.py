"""How often the right text is found: by meaning, by words, and both, in English and Chinese, beside two libraries.

Natural Questions (open book, 820 texts) and CMRC 2018 (trial, 256 texts), read from ``PAGODA_PUBLIC_DATA`` or
``../shared/data``, pooled in one collection; each question is asked of all, and of its own set alone (by a label).
Whatever was chosen here was chosen on questions with an even SHA-256; the figures are of the odd ones, and those that
end in ``_all`` of both. Each text is a document of its own; its rank is that of its best passage. The peers, with their
own splitters and stores as they come, get their vectors from the same model through the same door: LlamaIndex'
``VectorStoreIndex`` and LangChain's ``InMemoryVectorStore``; each runs only where it is installed. Also how near the
nearest passage is for questions of its own set and of the other one, and the speed of the splitter. ``TEXTS=120`` takes
the first texts of each set only.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ground import settings
from pagoda.application.platform import Platform
from pagoda.application.retrieving import Retrieval
from pagoda.core.errors import ContextTooLong
from pagoda.core.types import Call, Embed
from pagoda.logic.retrieval.closeness import is_close
from pagoda.logic.retrieval.collection import DEFAULT_MODEL, Plan, Tags
from pagoda.logic.retrieval.question import MODES, Question, Refinement
from pagoda.logic.retrieval.splitting import Splitter

TEXTS = int(os.environ.get("TEXTS", "0")) or None
_DEPTH = 100  # passages that ranks are looked for among
Asked = tuple[int, str]
"""Number of the text that answers, and the question."""
Ranker = Callable[[str], Awaitable[list[str]]]
"""The documents (``set/number``) in order, best first, for a question."""


def data() -> Path:
    return Path(os.environ.get("PAGODA_PUBLIC_DATA", "../shared/data")) / "rag"


def open_book() -> list[tuple[str, str, list[str]]]:
    """Natural Questions: a text, what is asked of it, and the answers that will do."""
    found = []
    for line in (data() / "nq_open_book.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        text, _, rest = row["context"].removeprefix("Context: ").rpartition("\n\nQuestion: ")
        found.append((text, rest.removesuffix("\nAnswer:").strip(), [row["answer"], *row["aliases"]]))
    return found


def natural_questions() -> tuple[list[str], list[Asked]]:
    places: dict[str, int] = {}
    asked = [(places.setdefault(text, len(places)), question) for text, question, _ in open_book()]
    return list(places), asked


def cmrc() -> tuple[list[str], list[Asked]]:
    texts: list[str] = []
    asked: list[Asked] = []
    for article in json.loads((data() / "cmrc2018_trial.json").read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            texts.append(paragraph["context"])
            asked += [(len(texts) - 1, each["question"]) for each in paragraph["qas"]]
    return texts, asked


def is_held_out(question: str) -> bool:
    """Whether nothing was chosen on this question: its SHA-256 is odd."""
    return bool(question) and hashlib.sha256(question.encode()).digest()[-1] % 2 == 1


def there(asked: Sequence[Asked]) -> list[Asked]:
    """The questions whose text is there."""
    return [each for each in asked if each[1] and (TEXTS is None or each[0] < TEXTS)]


def held_out(asked: Sequence[Asked]) -> list[Asked]:
    return [each for each in there(asked) if is_held_out(each[1])]


async def measure() -> dict[str, Any]:
    sets = {"nq": natural_questions(), "cmrc": cmrc()}
    texts = {f"{name}/{number}": text for name, (all_, _) in sets.items() for number, text in enumerate(all_[:TEXTS])}
    every = {name: there(asked) for name, (_, asked) in sets.items()}
    questions = {name: held_out(asked) for name, asked in every.items()}
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform(settings(Path(folder) / "home", {}), os.environ)
        await platform.start()
        retrieval = Retrieval(platform.settings, platform.records, lambda: platform.inference)
        try:
            figures: dict[str, Any] = {"pagoda": await ours(retrieval, texts, questions, every)}
            for name, peer in PEERS.items():
                if importlib.util.find_spec(name):
                    figures[name] = await quality(await peer(platform, texts), questions)
        finally:
            await platform.stop()
    figures["splitting_mb_per_second"] = splitting(list(texts.values()))
    return figures


async def ours(
    retrieval: Retrieval, texts: dict[str, str], questions: dict[str, list[Asked]], every: dict[str, list[Asked]]
) -> dict[str, Any]:
    collection = await retrieval.book.ensure("local", "pooled", Plan())
    began, chunks = time.perf_counter(), 0
    for name, text in texts.items():
        tags = Tags(labels={"set": name.split("/")[0]})
        report = await retrieval.ingestion.take_upload(
            collection, f"{name}.txt", text.encode(), Call(purpose="ingestion"), tags
        )
        chunks += report.chunks
    figures: dict[str, Any] = {
        "texts": len(texts),
        "chunks": chunks,
        "chunks_per_second": round(chunks / (time.perf_counter() - began), 1),
    }

    def ranker(mode: Any, own: str | None = None) -> Ranker:
        refinement = Refinement(where={"set": (own,)} if own else {})

        async def rank(question: str) -> list[str]:
            hits = await retrieval.searcher.search(
                "pooled", question, Call(), limit=_DEPTH, mode=mode, refinement=refinement
            )
            return [hit.passage.source.removesuffix(".txt") for hit in hits]

        return rank

    for mode in MODES:
        figures[mode] = await quality(ranker(mode), questions)
        figures[f"{mode}_all"] = await quality(ranker(mode), every)
        apart = {name: await quality(ranker(mode, name), {name: questions[name]}) for name in questions}
        figures[f"{mode}_apart"] = {name: told[name] for name, told in apart.items()}
    for name, asked in questions.items():
        other = next(each for each in questions if each != name)
        for word, own, told in (
            ("own_let_through", name, True),
            ("strangers_let_through", other, True),
            ("unanswered_let_through", name, False),
        ):
            figures.setdefault(word, {})[name] = await close(retrieval, own, asked, told)
    return figures


async def quality(rank: Ranker, questions: dict[str, list[Asked]]) -> dict[str, Any]:
    """Recall at 1 and 5, and the mean reciprocal rank, by set."""
    figures: dict[str, Any] = {}
    for name, asked in questions.items():
        ranks = []
        for number, question in asked:
            documents = list(dict.fromkeys(await rank(question)))
            wanted = f"{name}/{number}"
            ranks.append(documents.index(wanted) + 1 if wanted in documents else 0)
        found = np.asarray(ranks)
        figures[name] = {
            "questions": len(asked),
            "recall_at_1": round(float((found == 1).mean()), 3),
            "recall_at_5": round(float(((found > 0) & (found <= 5)).mean()), 3),
            "mrr": round(float(np.where(found > 0, 1 / np.maximum(found, 1), 0).mean()), 3),
        }
    return figures


async def close(retrieval: Retrieval, own: str, questions: Sequence[Asked], told: bool) -> float:
    """The share of questions that a passage of a set is close to; without the text that answers, if not ``told``."""
    passed = 0
    refinement = Refinement(where={"set": (own,)})
    for number, text in questions:
        question = Question(text=text, collection="pooled")
        hits = await retrieval.searcher.search("pooled", text, Call(), limit=50, mode="dense", refinement=refinement)
        counted = [hit for hit in hits if told or hit.passage.source != f"{own}/{number}.txt"]
        passed += any(is_close(question, hit.passage.text, hit.score, DEFAULT_MODEL) for hit in counted)
    return round(passed / len(questions), 3)


Embedder = Callable[[Sequence[str], Any], Coroutine[Any, Any, list[list[float]]]]


def embedder(platform: Platform) -> Embedder:
    """The model's vectors. What is longer than it takes is cut, as libraries that call a model themselves do."""

    async def embed(texts: Sequence[str], kind: Any) -> list[list[float]]:
        rows: list[list[float]] = []
        for text in texts:
            size = len(text)
            while True:
                try:
                    request = Embed(model=DEFAULT_MODEL, inputs=(text[:size],), kind=kind)
                    rows += (await platform.inference.embed(request, Call())).floats()
                    break
                except ContextTooLong:
                    size = size * 3 // 4
        return rows

    return embed


def waiting(embed: Embedder) -> Callable[[Sequence[str], Any], list[list[float]]]:
    """The same for a thread that waits."""
    loop = asyncio.get_running_loop()
    return lambda texts, kind: asyncio.run_coroutine_threadsafe(embed(texts, kind), loop).result()


async def llama_index(platform: Platform, texts: dict[str, str]) -> Ranker:
    from llama_index.core import Document, VectorStoreIndex
    from llama_index.core.embeddings import BaseEmbedding

    embed = embedder(platform)
    wait = waiting(embed)

    class Model(BaseEmbedding):  # type: ignore[misc]
        def _get_text_embedding(self, text: str) -> list[float]:
            return wait([text], "passage")[0]

        def _get_query_embedding(self, query: str) -> list[float]:
            return wait([query], "query")[0]

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return (await embed([query], "query"))[0]

    documents = [Document(text=text, metadata={}, doc_id=name) for name, text in texts.items()]
    index = await asyncio.to_thread(VectorStoreIndex.from_documents, documents, embed_model=Model())
    retriever = index.as_retriever(similarity_top_k=_DEPTH)

    async def rank(question: str) -> list[str]:
        return [each.node.ref_doc_id for each in await retriever.aretrieve(question)]

    return rank


async def langchain_core(platform: Platform, texts: dict[str, str]) -> Ranker:
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import InMemoryVectorStore
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    wait = waiting(embedder(platform))

    class Model(Embeddings):  # type: ignore[misc]  # the asynchronous forms call these in a thread
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return wait(texts, "passage")

        def embed_query(self, text: str) -> list[float]:
            return wait([text], "query")[0]

    pieces = RecursiveCharacterTextSplitter().create_documents(list(texts.values()), [{"name": name} for name in texts])
    store = InMemoryVectorStore(Model())
    await store.aadd_documents(pieces)

    async def rank(question: str) -> list[str]:
        return [each.metadata["name"] for each in await store.asimilarity_search(question, k=_DEPTH)]

    return rank


PEERS = {"llama_index": llama_index, "langchain_core": langchain_core}


def splitting(texts: Sequence[str]) -> float:
    """MB of UTF-8 a second."""
    text = "\n\n".join(texts)
    text *= 10_000_000 // len(text.encode()) + 1
    began = time.perf_counter()
    Splitter().split(text)
    return round(len(text.encode()) / 1e6 / (time.perf_counter() - began), 1)
