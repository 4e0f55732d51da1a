"""``POST /v1/rerank``: the form that Jina and Cohere share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pagoda.interface.schemas.embedding import MOST_INPUTS, Text
from pagoda.interface.schemas.shared import EmbeddingUsage, ModelName, Shape, Strict


class Document(Strict):
    """A document as an object."""

    text: Text


class RerankRequest(Strict):
    """Documents to be ordered by how well they answer a query."""

    model: ModelName | None = None
    query: Text
    documents: Annotated[list[Text | Document], Field(min_length=1, max_length=MOST_INPUTS)]
    top_n: int | None = Field(None, ge=1, description="How many of the best are given; absent: all.")
    return_documents: bool | None = Field(None, description="Give each document's text back.")
    user: str | None = Field(None, max_length=500)

    def texts(self) -> tuple[str, ...]:
        """Each document's text."""
        return tuple(item if isinstance(item, str) else item.text for item in self.documents)


class RankedDocument(Shape):
    """A document's place in the request, and how well it answers."""

    index: int
    relevance_score: float
    document: Document | None = None


class RerankAnswer(Shape):
    """The best documents, best first."""

    id: str
    model: str
    results: list[RankedDocument]
    usage: EmbeddingUsage
