"""``POST /v1/embeddings``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pagoda.interface.schemas.completion import TokenIds
from pagoda.interface.schemas.shared import EmbeddingUsage, ModelName, Shape, Strict, each_of

Text = Annotated[str, Field(min_length=1)]
MOST_INPUTS = 2048


class EmbeddingRequest(Strict):
    """Texts or token ids to be embedded."""

    model: ModelName | None = None
    input: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_INPUTS)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MOST_INPUTS)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, le=100_000)
    input_type: Literal["raw", "query", "passage"] = Field(
        "raw", description="Extension: the prefix that the model was trained with; raw adds none."
    )
    user: str | None = Field(None, max_length=500)

    def inputs(self) -> tuple[str | tuple[int, ...], ...]:
        """Each input by itself."""
        return tuple(each_of(self.input))


class EmbeddingRow(Shape):
    """One vector, as numbers or as base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingAnswer(Shape):
    """All vectors, in the inputs' order."""

    object: Literal["list"]
    data: list[EmbeddingRow]
    model: str
    usage: EmbeddingUsage
