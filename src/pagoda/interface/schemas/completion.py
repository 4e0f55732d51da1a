"""``POST /v1/completions``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pagoda.interface.schemas.shared import MOST_TOKENS, Length, ModelName, SamplingFields, Shape, TokenUsage, each_of

TokenId = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]
MOST_ANSWERS = 128


class CompletionRequest(SamplingFields):
    """Text (or token ids) to be continued; a list of them asks for each."""

    model: ModelName | None = None
    prompt: str | Annotated[list[str], Field(min_length=1)] | TokenIds | Annotated[list[TokenIds], Field(min_length=1)]
    max_tokens: Length | None = Field(16, description="New tokens at most; OpenAI's default is 16.")
    logprobs: int | None = Field(None, ge=0, le=5)
    echo: bool | None = Field(None, description="The answer starts with the prompt.")
    best_of: int | None = Field(None, ge=1, le=128)

    @model_validator(mode="after")
    def _check(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("best_of is not supported unless it equals n")
        if self.echo and self.logprobs is not None:
            raise ValueError("echo together with logprobs is not supported")
        if self.echo and not all(isinstance(prompt, str) for prompt in self.prompts()):
            raise ValueError("echo needs the prompt as text")
        if len(self.prompts()) * (self.n or 1) > MOST_ANSWERS:
            raise ValueError(f"prompts times n must be at most {MOST_ANSWERS}")
        return self

    def prompts(self) -> list[str | tuple[int, ...]]:
        """Each prompt by itself."""
        return each_of(self.prompt)


class CompletionLogprobs(Shape):
    """Log-probabilities as parallel lists."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(Shape):
    """One continuation."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    stop_reason: str | None = None


class CompletionAnswer(Shape):
    """All continuations."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: TokenUsage
    warnings: list[str] | None = None
