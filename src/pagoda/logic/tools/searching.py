"""Search: over a collection of documents of this machine by their words (BM25), and the port for searching the web.

Not here: how words are compared (``logic.retrieval.lexical``), and search by meaning (``logic.retrieval.index``).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from pagoda.core.errors import InvalidRequest, ToolError
from pagoda.core.types import Json
from pagoda.logic.retrieval.lexical import LexicalIndex, best

_PASSAGE_CHARACTERS = 800
_MOST_BYTES = 50 * 1024 * 1024
_ENDINGS = frozenset({".txt", ".md", ".rst"})


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document."""

    source: str
    text: str


class SearchProvider(Protocol):
    """Whoever can search: each hit a passage, the best first. Raises ``ToolError``."""

    async def __call__(self, query: str, limit: int) -> Sequence[Passage]:
        """Find passages for a query."""
        ...


class Collection:
    """Passages in memory, found by their words."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._passages = list(passages)
        self._index = LexicalIndex(passage.text for passage in self._passages)

    async def __call__(self, query: str, limit: int) -> Sequence[Passage]:
        """The passages that share the rarest words with the query; none that share no word."""
        return [self._passages[place] for place in best(self._index.scores(query), limit, above=0)]


def read_collection(folder: Path) -> Collection:
    """The text files of a folder and those below. Raises ``InvalidRequest`` where there is none or it is huge."""
    if not folder.is_dir():
        raise InvalidRequest(f"There is no folder {folder} with documents to search; see tools.documents.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix in _ENDINGS and path.is_file())
    if sum(path.stat().st_size for path in paths) > _MOST_BYTES:
        raise InvalidRequest(
            f"The documents in {folder} are too many to search in memory; {_MOST_BYTES} bytes are the most."
        )
    return Collection(
        Passage(path.relative_to(folder).as_posix(), piece)
        for path in paths
        for piece in _pieces(path.read_text(encoding="utf-8", errors="replace"))
    )


def _pieces(text: str) -> Iterable[str]:
    """Paragraphs, joined while they are short and cut where they are long."""
    held = ""
    for paragraph in re.split(r"\n\s*\n", text):
        if held and len(held) + len(paragraph) > _PASSAGE_CHARACTERS:
            yield held
            held = ""
        held = f"{held}\n\n{paragraph}".strip()
        while len(held) > _PASSAGE_CHARACTERS:
            yield held[:_PASSAGE_CHARACTERS]
            held = held[_PASSAGE_CHARACTERS:]
    if held:
        yield held


AskJson: TypeAlias = Callable[[str, dict[str, str]], Awaitable[Json]]


class SearxSearch:
    """A SearXNG server's JSON search (``/search?q=...&format=json``), which an operator runs for the web."""

    def __init__(self, url: str, ask: AskJson) -> None:
        self._url = url.rstrip("/") + "/search"
        self._ask = ask

    async def __call__(self, query: str, limit: int) -> Sequence[Passage]:
        """The server's first hits."""
        answer = await self._ask(self._url, {"q": query, "format": "json"})
        rows = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(rows, list):
            raise ToolError("the search server answered something that is no list of results")
        return [
            Passage(str(row.get("url", "")), f"{row.get('title', '')}\n{row.get('content', '')}")
            for row in rows[:limit]
        ]
