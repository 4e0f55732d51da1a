"""What is asked of a collection: values alone, which cost nothing to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pagoda.core.types import Message

Mode = Literal["fused", "dense", "lexical"]
MODES: tuple[Mode, ...] = ("fused", "dense", "lexical")
Method = Literal["auto", "stuff", "refine", "map-reduce", "quote"]
METHODS: tuple[Method, ...] = ("auto", "stuff", "refine", "map-reduce", "quote")

MOST_HITS = 100
_UNKNOWN = {"en": "The documents do not say.", "zh": "文档中没有说明。"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """What a search does beside ranking."""

    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Only documents with one of these values in each of these fields (labels, ``source``, ``title``, ``kind``)."""
    diversity: float = 0.0
    """0 (off) to 1: how much a hit that resembles better ones falls behind."""
    limited: bool = True
    """Also the documents that only some keys may see, where the asking key is one of them."""
    reranker: str | None = None
    """A model that reorders the candidates by how well they answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a collection, and how."""

    text: str
    collection: str
    limit: int = 5
    """Passages to show to the model."""
    floor: float | None = None
    """Cosine that the nearest passage must reach; ``None``: what ``closeness`` has for the two languages."""
    history: tuple[Message, ...] = ()
    """The conversation before it, for a follow-up question."""
    method: Method = "auto"
    """``stuff`` shows at once as many passages as fit; ``refine`` and ``map-reduce`` show all, part by part; ``auto``
    is ``map-reduce`` where they do not fit at once. ``quote`` asks no model: the nearest sentences, word for word."""
    refinement: Refinement = field(default_factory=Refinement)

    @property
    def language(self) -> str:
        """Of the words around the question, after the question's own."""
        return "zh" if any("\u4e00" <= letter <= "\u9fff" for letter in self.text) else "en"

    @property
    def unknown(self) -> str:
        """What is said when the documents do not tell."""
        return _UNKNOWN[self.language]
