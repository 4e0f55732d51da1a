"""How long a search takes in a large collection, without the model: made-up texts and vectors, ``CHUNKS`` of them.

A fifth of the texts is Chinese; words are drawn by Zipf's law, vectors lie in clusters around a common direction, as
those of sentence embedders do. A question is some words of a chunk, with that chunk's vector bent a little, which a
door that asks no model gives at once. Times are of whole searches, the look at the records included. Recall at 10 is
counted against cosines in float64. ``narrowed_ms`` is a fused search of half of the documents, asked in turn with the
others; ``cpu_p50`` is processor time, which a crowd disturbs least. ``bare_product_ms`` is the product of the matrix
and a question's vector by BLAS, in the same minute: what a crowded machine does shows there too.
``build_seconds`` is the first search after a start: all rows read, the matrix and the index of words made;
``after_..._seconds`` the first one after one document of a hundred chunks was put in, changed or taken out, or after
one of a single chunk was put in.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.ground import settings
from pagoda.application.retrieving import Retrieval
from pagoda.core.storage.store import Store, open_store
from pagoda.core.types import Call, Embed, Embeddings
from pagoda.logic.retrieval.book import Origin
from pagoda.logic.retrieval.collection import Chunk, Collection, Plan
from pagoda.logic.retrieval.document import Document
from pagoda.logic.retrieval.question import MODES, Mode, Refinement

CHUNKS = int(os.environ.get("CHUNKS", "100000"))
QUESTIONS = int(os.environ.get("QUESTIONS", "200"))
_DIMENSIONS, _CLUSTERS, _LENGTH, _TOGETHER, _DEPTH = 384, 500, 480, 100, 10
_WORDS, _LETTERS = 30_000, 3_000
_EVEN = ("even",)  # the title of every other document


class Vectors:
    """A door that knows the vector of each question."""

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}

    async def embed(self, request: Embed, call: Call) -> Embeddings:
        vectors = tuple(self.known[str(text)] for text in request.inputs)
        return Embeddings(model=request.model, vectors=vectors, dimensions=_DIMENSIONS, prompt_tokens=1)


class MadeUp:
    """Texts and vectors, the same for a seed."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        syllables = [a + b for a in "bcdfglmnprst" for b in "aeiou"]
        self._words = ["".join(self._rng.choice(syllables, 1 + number % 4)) for number in range(_WORDS)]
        self._letters = [chr(0x4E00 + number) for number in range(_LETTERS)]
        self._odds = {size: (odds := 1 / np.arange(2, size + 2)) / odds.sum() for size in (_WORDS, _LETTERS)}
        self._centres = self._rng.standard_normal((_CLUSTERS, _DIMENSIONS)) + 2 * self._rng.standard_normal(_DIMENSIONS)

    def text(self, chinese: bool) -> str:
        stock, space = (self._letters, "") if chinese else (self._words, " ")
        drawn = self._rng.choice(len(stock), _LENGTH // (1 if chinese else 4), p=self._odds[len(stock)])
        return space.join(stock[place] for place in drawn)[:_LENGTH].ljust(_LENGTH, ".")

    def vectors(self, count: int) -> NDArray[np.float32]:
        centres = self._centres[self._rng.integers(0, _CLUSTERS, count)]
        return unit(centres + self._rng.standard_normal((count, _DIMENSIONS)))

    def question(self, text: str, vector: NDArray[np.float32]) -> tuple[str, NDArray[np.float32]]:
        words = text.split()
        some = words[4:12] if len(words) > 1 else [text[20:32]]
        return " ".join(some), unit(vector + self._rng.standard_normal(_DIMENSIONS) / _DIMENSIONS**0.5)


def unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype("<f4")
    return scaled


async def measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        async with open_store(settings(Path(folder) / "home", {})) as store:
            return await _measured(store)


async def _measured(store: Store) -> dict[str, Any]:
    door, made = Vectors(), MadeUp()

    async def opened() -> Store:
        return store

    options: Any = (None, opened, lambda: door)
    retrieval = Retrieval(*options)
    collection = await retrieval.book.ensure("local", "large", Plan(limit=_LENGTH, overlap=0))
    texts = [made.text(chinese=number // _TOGETHER % 5 == 0) for number in range(CHUNKS)]
    vectors = made.vectors(CHUNKS)
    for begin in range(0, CHUNKS, _TOGETHER):
        await _put(retrieval, collection, begin, texts[begin : begin + _TOGETHER], vectors[begin:])
    picked = np.random.default_rng(1).choice(CHUNKS, min(QUESTIONS, CHUNKS), replace=False)
    asked = dict(made.question(texts[place], vectors[place]) for place in picked)
    door.known = {question: vector.tobytes() for question, vector in asked.items()}
    del texts
    before = resident()
    figures: dict[str, Any] = {"chunks": CHUNKS, "build_seconds": await _first(retrieval, next(iter(asked)))}
    figures["memory_mb"] = round(resident() - before)
    figures |= await _times(retrieval, list(asked))
    figures["bare_product_ms"] = _bare(vectors, list(asked.values()))
    figures[f"recall_at_{_DEPTH}"] = await _recall(retrieval, asked, vectors.astype(np.float64))
    for name, begin, size in (
        ("an_addition", CHUNKS, _TOGETHER),
        ("a_change", CHUNKS // 2, _TOGETHER),
        ("a_note", -1, 1),
    ):
        await _put(retrieval, collection, begin, [made.text(False) for _ in range(size)], made.vectors(size))
        figures[f"after_{name}_seconds"] = await _first(retrieval, next(iter(asked)))
    await retrieval.book.remove(collection, [_source(CHUNKS // 4 // _TOGETHER * _TOGETHER)])
    figures["after_a_deletion_seconds"] = await _first(retrieval, next(iter(asked)))
    figures["memory_after_mb"] = round(resident() - before)
    return figures


async def _put(
    retrieval: Retrieval, collection: Collection, begin: int, texts: list[str], vectors: NDArray[np.float32]
) -> None:
    source, text = _source(begin), "".join(texts)
    title = "odd" if begin // _TOGETHER % 2 else _EVEN[0]
    document = Document(kind="text", encoding="utf-8", title=title, text=text)
    chunks = [
        Chunk(start=at * _LENGTH, end=(at + 1) * _LENGTH, heading="", vector=vectors[at].tobytes())
        for at in range(len(texts))
    ]
    await retrieval.book.put(collection, Origin(source=source, digest=source, size=len(text)), document, chunks)


def _source(begin: int) -> str:
    return f"{begin:09}.txt"


async def _first(retrieval: Retrieval, question: str) -> float:
    began = time.perf_counter()
    await retrieval.searcher.search("large", question, Call())
    return round(time.perf_counter() - began, 2)


async def _times(retrieval: Retrieval, questions: list[str]) -> dict[str, dict[str, float]]:
    """Milliseconds of a search of each kind, one after another and in turn."""
    narrowed = Refinement(where={"title": _EVEN})
    kinds: list[tuple[str, Mode, Refinement]] = [(mode, mode, Refinement()) for mode in MODES]
    kinds.append(("narrowed", "fused", narrowed))
    times: dict[str, list[float]] = {name: [] for name, _, _ in kinds}
    worked: dict[str, list[float]] = {name: [] for name, _, _ in kinds}
    for question in questions:
        for name, mode, refinement in kinds:
            began, before = time.perf_counter(), time.process_time()
            await retrieval.searcher.search("large", question, Call(), mode=mode, limit=_DEPTH, refinement=refinement)
            times[name].append(time.perf_counter() - began)
            worked[name].append(time.process_time() - before)
    return {f"{name}_ms": _shares(times[name]) | {"cpu_p50": _shares(worked[name])["p50"]} for name in times}


def _bare(vectors: NDArray[np.float32], questions: Sequence[NDArray[np.float32]]) -> dict[str, float]:
    times = []
    for question in questions:
        began = time.perf_counter()
        vectors @ question
        times.append(time.perf_counter() - began)
    return _shares(times)


def _shares(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    return {f"p{share}": round(float(np.percentile(seconds, share)) * 1e3, 2) for share in (5, 50, 99)}


async def _recall(retrieval: Retrieval, asked: dict[str, NDArray[np.float32]], vectors: NDArray[np.float64]) -> float:
    """The share of the nearest chunks that a search by meaning finds."""
    found = 0
    for question, vector in asked.items():
        nearest = {int(place) for place in np.argsort(-(vectors @ vector.astype(np.float64)))[:_DEPTH]}
        hits = await retrieval.searcher.search("large", question, Call(), mode="dense", limit=_DEPTH)
        places = {int(hit.passage.source.removesuffix(".txt")) + hit.passage.start // _LENGTH for hit in hits}
        found += len(nearest & places)
    return round(found / (_DEPTH * len(asked)), 4)


def resident() -> float:
    """Most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
