"""After any changes a collection in memory is what would be made of all of its records."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import hypothesis
import numpy as np
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.settings import Settings
from pagoda.core.storage.store import Store, open_store
from pagoda.core.types import Call, Embed, Embeddings
from pagoda.logic.retrieval.book import CollectionBook, Origin
from pagoda.logic.retrieval.collection import Chunk, Collection, HeldPassage, Listed, Passage, Plan, Tags
from pagoda.logic.retrieval.document import Document
from pagoda.logic.retrieval.index import Searcher
from pagoda.logic.retrieval.loaded import Loaded, empty
from pagoda.logic.retrieval.question import MODES, MOST_HITS, Refinement

WORDS = ("river", "rivers", "tea", "moon", "steel", "law", "水", "茶水", "月")
QUERIES = ("river tea", "moon law moon", "茶水 月", "nothing")
SOURCES = [f"{name}.txt" for name in "abcdefgh"]
WIDTH = 4
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
changes = st.tuples(
    st.sampled_from(("put", "put", "remove", "tag", "rename")),
    st.sampled_from(SOURCES),
    st.lists(texts, max_size=4),
    st.sampled_from((None, ("key_1",), ("key_1", "key_2"))),
)


def vector(text: str) -> bytes:
    """The same for a text."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")
    row = np.random.default_rng(seed).standard_normal(WIDTH)
    return (row / np.linalg.norm(row)).astype("<f4").tobytes()


@dataclass
class Records:
    """What the document table holds."""

    documents: dict[str, tuple[str, list[str], tuple[str, ...] | None]] = field(default_factory=dict)
    """By source: id, texts of the chunks, keys."""
    revision: int = 0

    def change(self, kind: str, source: str, told: list[str], keys: tuple[str, ...] | None) -> None:
        self.revision += 1
        if kind == "put":
            self.documents[source] = (f"doc_{self.revision}", told, keys)
        elif source in self.documents:
            id, held, _ = self.documents.pop(source)
            if kind == "tag":
                self.documents[source] = (id, held, keys)
            elif kind == "rename":
                self.documents[f"{source}_{self.revision}"] = (id, held, keys)

    def renew(self, loaded: Loaded) -> Loaded:
        listed: dict[str, Listed] = {}
        fresh: dict[str, list[HeldPassage]] = {}
        for source, (id, held, keys) in sorted(self.documents.items()):
            listed[id] = (source, source, "text", {}, None if keys is None else list(keys))
            if loaded.documents.get(id) != listed[id]:
                fresh[id] = [self._passage(id, source, place, text, keys) for place, text in enumerate(held)]
        made = datetime(2026, 1, 1, tzinfo=UTC)
        collection = Collection(tenant="blue", name="any", id="col", plan=Plan(), revision=self.revision, created=made)
        return loaded.renewed(collection, listed, fresh)

    @staticmethod
    def _passage(id: str, source: str, place: int, text: str, keys: tuple[str, ...] | None) -> HeldPassage:
        passage = Passage(
            document=id, source=source, title=source, heading="", start=place, end=place + 1, text=text, labels={}
        )
        return HeldPassage(passage=passage, vector=vector(text), tags=Tags(keys=keys), kind="text")


@hypothesis.settings(deadline=None)
@given(st.lists(changes, max_size=25))
def test_any_changes_leave_what_would_be_made_of_nothing(made: list[tuple[str, str, list[str], None]]) -> None:
    records, loaded = Records(), empty()
    for number, change in enumerate(made):
        records.change(*change)
        if number % 3 == 2:  # several changes between two searches
            continue
        loaded, other = records.renew(loaded), records.renew(empty())
        assert loaded.held == other.held
        assert list(loaded.documents) == list(other.documents)
        assert loaded.vectors.tobytes() == other.vectors.tobytes()
        assert loaded.begins.tolist() == other.begins.tolist()
        assert loaded.fields.limited == other.fields.limited
        for query in QUERIES:
            assert loaded.words.scores(query).tolist() == other.words.scores(query).tolist()
            if loaded.held:
                ranked = [each.ranked(query, vector(query), 5, None, words=True)[0] for each in (loaded, other)]
                assert ranked[0] == ranked[1]


def test_an_index_of_words_that_are_mostly_gone_is_worn() -> None:
    records, loaded = Records(), empty()
    for number in range(4):
        records.change("put", "a.txt", [" ".join(f"w{number}x{word}" for word in range(30_000))], None)
        loaded = records.renew(loaded)
    assert loaded.words.worn
    assert not records.renew(empty()).words.worn, "one that is made of nothing remembers only what is there"


class Door:
    """Embeds by ``vector``."""

    async def embed(self, request: Embed, call: Call) -> Embeddings:
        vectors = tuple(vector(str(text)) for text in request.inputs)
        return Embeddings(model=request.model, vectors=vectors, dimensions=WIDTH, prompt_tokens=1)


@pytest_asyncio.fixture
async def book(settings: Settings) -> AsyncIterator[CollectionBook]:
    async with open_store(settings) as store:

        async def opened() -> Store:
            return store

        yield CollectionBook(opened)


def place(passage: Passage) -> tuple[str, int]:
    return passage.document, passage.start


async def test_a_searcher_that_saw_every_change_finds_what_a_new_one_finds(
    book: CollectionBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = await book.ensure("blue", "live", Plan(model="any", limit=40, overlap=0))
    read: list[int] = []  # documents of each look at the records
    plain = book.changes

    async def counted(*arguments: object) -> object:
        found = await plain(*arguments)  # type: ignore[arg-type]
        read.append(len(found[2]))
        return found

    monkeypatch.setattr(book, "changes", counted)
    live = Searcher(book, Door)  # type: ignore[arg-type]
    rng = random.Random(7)
    for step in range(40):
        there = {row.source for row in await book.documents(collection)}
        kind, source = rng.choice(("put", "put", "put", "remove", "tag", "rename")), rng.choice(SOURCES)
        if kind == "put":
            pieces = [" ".join(rng.choices(WORDS, k=4)).ljust(40) for _ in range(rng.randrange(1, 4))]
            chunks = [
                Chunk(start=at * 40, end=at * 40 + 40, heading="", vector=vector(text))
                for at, text in enumerate(pieces)
            ]
            document = Document(kind="text", encoding="utf-8", title=source, text="".join(pieces))
            await book.put(collection, Origin(source=source, digest=str(step), size=1), document, chunks)
        elif source in there and kind == "remove":
            await book.remove(collection, {source})
        elif source in there and kind == "tag":
            await book.tag(collection, source, Tags(labels={"step": str(step)}, keys=rng.choice((None, ("key_1",)))))
        elif source in there and f"new-{source}" not in there:
            await book.rename(collection, source, f"new-{source}")
        for mode in MODES:
            for call in (Call(tenant="blue"), Call(tenant="blue", key_id="key_2")):
                query = rng.choice(QUERIES)
                read.clear()
                found = await live.search("live", query, call, mode=mode, limit=MOST_HITS)
                assert sum(read) <= 1, "only the document that changed is read again"
                assert found == await Searcher(book, Door).search("live", query, call, mode=mode, limit=MOST_HITS)  # type: ignore[arg-type]
                wish = Refinement(where={"step": tuple(str(past) for past in range(step + 1) if past % 3 == 0)})
                narrowed = await live.search("live", query, call, mode=mode, limit=MOST_HITS, refinement=wish)
                now = {row.source: row.tags for row in await book.documents(collection, call.key_id)}
                wanted = [hit.passage for hit in found if int(now[hit.passage.source].labels.get("step", "1")) % 3 == 0]
                assert sorted(map(place, wanted)) == sorted(place(hit.passage) for hit in narrowed)
