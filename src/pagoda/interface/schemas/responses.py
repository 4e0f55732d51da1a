"""``POST /v1/responses``: OpenAI's newer form of asking for text."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from pagoda.interface.schemas.shared import MOST_TOKENS, Length, ModelName, Shape, Strict, Temperature, branch_of

LOGPROBS = "message.output_text.logprobs"


class InputText(Strict):
    """A part of what a user or the system said."""

    type: Literal["input_text"]
    text: str


class OutputText(Strict):
    """A part of what an assistant said, as it came."""

    type: Literal["output_text"]
    text: str
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: list[Any] | None = None


Part = Annotated[
    Annotated[InputText, Tag("<input_text>")] | Annotated[OutputText, Tag("<output_text>")], Discriminator(branch_of)
]
Status = Literal["in_progress", "completed", "incomplete"]


class MessageItem(Strict):
    """One message of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]
    id: str | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None

    def plain(self) -> dict[str, Any]:
        """The message as engines take it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ReasoningItem(Strict):
    """Thinking of an earlier answer, as it came; models are not shown it again."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: list[Any] = Field(default_factory=list)
    content: list[Any] | None = None
    encrypted_content: None = None
    status: Status | None = None


def _kind_of_item(value: Any) -> str:
    return branch_of(value, otherwise="message")


Item = Annotated[
    Annotated[MessageItem, Tag("<message>")] | Annotated[ReasoningItem, Tag("<reasoning>")],
    Discriminator(_kind_of_item),
]


class TextFormat(Strict):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: str = Field("answer", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    description: str | None = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> TextFormat:
        if (self.type == "json_schema") != (self.schema_ is not None):
            raise ValueError("schema belongs to the type json_schema, which needs it")
        return self


class TextOptions(Strict):
    """Options of the answer's text."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningOptions(Strict):
    """Options of thinking: none that could be honoured yet."""

    effort: None = None
    summary: None = None
    generate_summary: None = None


class StreamExtras(Strict):
    """Options of a stream."""

    include_obfuscation: Literal[False] | None = None


class ResponsesRequest(Strict):
    """Text or a conversation to be answered."""

    model: ModelName | None = None
    input: Annotated[str, Field(min_length=1)] | Annotated[list[Item], Field(min_length=1, max_length=10_000)]
    instructions: str | None = None
    max_output_tokens: Length | None = None
    temperature: Temperature | None = None
    top_p: float | None = Field(None, gt=0, le=1)
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    stream: bool | None = None
    stream_options: StreamExtras | None = None
    metadata: dict[str, str] | None = Field(None, description="Given back; does not change the answer.")
    user: str | None = Field(None, max_length=500)
    safety_identifier: str | None = Field(None, max_length=500)
    prompt_cache_key: str | None = Field(None, max_length=500)
    service_tier: Literal["auto", "default"] | None = None
    truncation: Literal["disabled"] | None = None
    store: Literal[False] | None = Field(None, description="Answers are not stored.")
    background: Literal[False] | None = None
    previous_response_id: None = None
    conversation: None = None
    prompt: None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    top_k: int | None = Field(None, ge=0, le=MOST_TOKENS, description="Extension: 0 switches it off.")
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1, description="Extension.")
    include_reasoning: bool = Field(True, description="Extension: false leaves the model's thinking out.")

    @model_validator(mode="after")
    def _check(self) -> ResponsesRequest:
        if self.top_logprobs is not None and not self.wants_logprobs:
            raise ValueError(f"top_logprobs needs {LOGPROBS} in include")
        if isinstance(self.input, list) and not any(isinstance(item, MessageItem) for item in self.input):
            raise ValueError("input has no message to be answered")
        return self

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer's text comes with log-probabilities."""
        return LOGPROBS in (self.include or ())

    def plain(self) -> tuple[dict[str, Any], ...]:
        """The conversation as engines take it."""
        items = (
            [{"role": "user", "content": self.input}]
            if isinstance(self.input, str)
            else [item.plain() for item in self.input if isinstance(item, MessageItem)]
        )
        return tuple([{"role": "system", "content": self.instructions}, *items] if self.instructions else items)


class ResponsesUsage(Shape):
    """Tokens."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class OutputItem(Shape):
    """A message or thinking."""

    id: str
    type: Literal["message", "reasoning"]
    status: Status
    role: Literal["assistant"] | None = None
    content: list[dict[str, Any]]
    summary: list[dict[str, Any]] | None = None


class ResponsesAnswer(Shape):
    """A whole answer."""

    id: str
    object: Literal["response"]
    created_at: float
    status: Literal["completed", "incomplete", "failed", "in_progress"]
    model: str
    output: list[OutputItem]
    usage: ResponsesUsage | None
    store: Literal[False]
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None
    warnings: list[str] | None = None
