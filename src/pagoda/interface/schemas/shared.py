"""What all requests and answers share: strictness, bounds, the error shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_TOKENS = 2**31 - 1


class Strict(BaseModel):
    """A request: unknown fields, NaN and infinities are refused, since what is ignored in silence misleads."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=(), hide_input_in_errors=True)


class Shape(BaseModel):
    """An answer."""

    model_config = ConfigDict(protected_namespaces=())


Temperature = Annotated[float, Field(ge=0, le=2, description="0 is greedy; higher draws more freely.")]
Length = Annotated[int, Field(ge=1, le=MOST_TOKENS, description="New tokens at most.")]
ModelName = Annotated[str, Field(min_length=1, max_length=500, description="Model id or alias; empty: the default.")]


class ErrorBody(Shape):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Shape):
    """The one shape of every error."""

    error: ErrorBody


def each_of(value: Sequence[object]) -> list[str | tuple[int, ...]]:
    """Each text or row of token ids, whether one or several were given."""
    if isinstance(value, str):
        return [value]
    if all(isinstance(item, int) for item in value):
        return [tuple(item for item in value if isinstance(item, int))]
    return [item if isinstance(item, str) else tuple(item) for item in value if isinstance(item, str | list)]


def branch_of(value: Any, otherwise: str = "") -> str:
    """The branch of a union that a part or item belongs to by its ``type``; in angle brackets, for ``problems``."""
    kind = value.get("type", otherwise) if isinstance(value, dict) else getattr(value, "type", otherwise)
    return f"<{kind}>"


class StreamOptions(Strict):
    """Options of a streamed answer."""

    include_usage: bool = Field(False, description="Send token usage in a last frame.")


class JsonSchema(Strict):
    """A named JSON Schema (draft 2020-12) for the answer."""

    name: str = Field("answer", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """The form of the answer: free text, any JSON object, or JSON valid against a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class SamplingFields(Strict):
    """Fields by which a request steers how tokens are drawn; absent or null means the model's default."""

    temperature: Temperature | None = None
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=MOST_TOKENS, description="Extension: 0 switches it off.")
    min_p: float | None = Field(None, ge=0, le=1, description="Extension.")
    repetition_penalty: float | None = Field(None, gt=0, le=10, description="Extension: 1 switches it off.")
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    logit_bias: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None = (
        Field(None, max_length=1024)
    )
    stop: (
        Annotated[str, Field(min_length=1, max_length=500)]
        | Annotated[list[Annotated[str, Field(min_length=1, max_length=500)]], Field(max_length=16)]
        | None
    ) = None
    n: int | None = Field(None, ge=1, le=128, description="How many answers.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    user: str | None = Field(None, max_length=500, description="Kept for your own use; does not change the answer.")
    metadata: dict[str, str] | None = Field(None, description="Kept for your own use; does not change the answer.")


class TokenUsage(Shape):
    """Tokens of a request."""

    class PromptDetails(Shape):
        """Of the prompt's tokens."""

        cached_tokens: int

    class CompletionDetails(Shape):
        """Of the completion's tokens."""

        reasoning_tokens: int

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class EmbeddingUsage(Shape):
    """Tokens of an embedding request."""

    prompt_tokens: int
    total_tokens: int
