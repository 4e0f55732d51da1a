"""``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pagoda.interface.schemas.prompts import NamedPrompt
from pagoda.interface.schemas.shared import Length, ModelName, SamplingFields, Shape, Strict, TokenUsage


class TextPart(Strict):
    """A part of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(Strict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = Field(None, max_length=64)
    reasoning_content: str | None = Field(None, description="An earlier answer's thinking, for templates that show it.")
    refusal: None = None

    def plain(self) -> dict[str, Any]:
        """The message as engines take it: text as one string, ``developer`` under its older name."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        message = {"role": "system" if self.role == "developer" else self.role, "content": text}
        if self.name:
            message["name"] = self.name
        if self.reasoning_content:
            message["reasoning_content"] = self.reasoning_content
        return message


class ChatRequest(SamplingFields):
    """A conversation to be answered."""

    model: ModelName | None = None
    prompt: NamedPrompt | None = Field(
        None, description="Extension: a kept prompt; its messages come first, and messages may be empty."
    )
    messages: list[ChatMessage] = Field(default=None, validate_default=True, max_length=10_000)
    max_tokens: Length | None = None
    max_completion_tokens: Length | None = Field(None, description="The newer name of max_tokens.")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    continue_final_message: bool = Field(False, description="Extension: continue the last (assistant) message.")
    add_generation_prompt: bool | None = Field(
        None, description="vLLM's companion of continue_final_message, and its opposite; said by it already."
    )
    include_reasoning: bool = Field(True, description="Extension: false leaves the model's thinking out.")
    reasoning_format: Literal["auto", "deepseek", "none"] | None = Field(
        None, description="Extension: none leaves the model's thinking in the text, as it was written."
    )
    store: Literal[False] | None = Field(None, description="Answers are not stored.")
    service_tier: Literal["auto", "default"] | None = None
    modalities: list[Literal["text"]] | None = None
    safety_identifier: str | None = Field(None, max_length=500)
    prompt_cache_key: str | None = Field(None, max_length=500)

    @field_validator("messages", mode="before")
    @classmethod
    def _need_messages(cls, given: Any, info: ValidationInfo) -> Any:
        """Without a prompt there is a message at least."""
        if info.data.get("prompt") is not None:
            return given or []
        if given is None:
            raise PydanticCustomError("missing", "Field required")
        if isinstance(given, list) and not given:
            raise ValueError("there must be a message at least, or a prompt")
        return given

    @model_validator(mode="after")
    def _check(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens are two names of one thing; give one")
        if self.reasoning_format == "none" and not self.include_reasoning:
            raise ValueError("reasoning_format none keeps the thinking that include_reasoning leaves out; give one")
        if self.continue_final_message and (not self.messages or self.messages[-1].role != "assistant"):
            raise ValueError("continue_final_message needs the last message to be the assistant's")
        if self.add_generation_prompt not in (None, not self.continue_final_message):
            raise ValueError("add_generation_prompt must be the opposite of continue_final_message; leave it out")
        return self


class LogprobEntry(Shape):
    """A token and its natural log-probability."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChosenLogprob(LogprobEntry):
    """A token of the answer with the likeliest rivals at its place."""

    top_logprobs: list[LogprobEntry]


class ChoiceLogprobs(Shape):
    """Log-probabilities of a choice."""

    content: list[ChosenLogprob] | None


class AnswerMessage(Shape):
    """The model's message."""

    role: Literal["assistant"]
    content: str
    refusal: None = None
    reasoning_content: str | None = None


class ChatChoice(Shape):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    stop_reason: str | None = None


class ChatAnswer(Shape):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: TokenUsage
    warnings: list[str] | None = None
