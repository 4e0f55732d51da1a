"""``POST /v1/responses``: OpenAI's newer form of asking for text."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from pagoda.core.types import Toolset
from pagoda.interface.schemas.chat import FunctionSpec, NamedFunction, ToolName
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


class CallItem(Strict):
    """A function call of an earlier answer, as it came."""

    type: Literal["function_call"]
    id: str | None = None
    call_id: str = Field(min_length=1, max_length=200)
    name: ToolName
    arguments: str
    status: Status | None = None

    def plain(self) -> dict[str, Any]:
        """The call as engines take it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.call_id, "type": "function", "function": function}


class CallOutputItem(Strict):
    """What a function call gave."""

    type: Literal["function_call_output"]
    id: str | None = None
    call_id: str = Field(min_length=1, max_length=200)
    output: str | list[InputText]
    status: Status | None = None

    def plain(self) -> dict[str, Any]:
        """The message as engines take it."""
        text = self.output if isinstance(self.output, str) else "".join(part.text for part in self.output)
        return {"role": "tool", "tool_call_id": self.call_id, "content": text}


def _kind_of_item(value: Any) -> str:
    return branch_of(value, otherwise="message")


Item = Annotated[
    Annotated[MessageItem, Tag("<message>")]
    | Annotated[ReasoningItem, Tag("<reasoning>")]
    | Annotated[CallItem, Tag("<function_call>")]
    | Annotated[CallOutputItem, Tag("<function_call_output>")],
    Discriminator(_kind_of_item),
]


class FunctionTool(FunctionSpec):
    """A function that the model may call."""

    type: Literal["function"]


class NamedFunctionTool(NamedFunction):
    """The one function that must be called."""

    type: Literal["function"]


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
    tools: Annotated[list[FunctionTool], Field(max_length=128)] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedFunctionTool | None = None
    parallel_tool_calls: bool | None = Field(None, description="false allows one call at most.")
    top_k: int | None = Field(None, ge=0, le=MOST_TOKENS, description="Extension: 0 switches it off.")
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1, description="Extension.")
    include_reasoning: bool = Field(True, description="Extension: false leaves the model's thinking out.")

    @model_validator(mode="after")
    def _check(self) -> ResponsesRequest:
        if self.top_logprobs is not None and not self.wants_logprobs:
            raise ValueError(f"top_logprobs needs {LOGPROBS} in include")
        if isinstance(self.input, list) and not any(isinstance(item, MessageItem) for item in self.input):
            raise ValueError("input has no message to be answered")
        if self.tool_choice not in (None, "auto", "none") and not self.tools:
            raise ValueError("tool_choice needs tools")
        return self

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer's text comes with log-probabilities."""
        return LOGPROBS in (self.include or ())

    def plain(self) -> tuple[dict[str, Any], ...]:
        """The conversation as engines take it."""
        messages: list[dict[str, Any]] = [{"role": "system", "content": self.instructions}] if self.instructions else []
        if isinstance(self.input, str):
            return (*messages, {"role": "user", "content": self.input})
        for item in self.input:
            if isinstance(item, MessageItem | CallOutputItem):
                messages.append(item.plain())
            elif isinstance(item, CallItem):  # it belongs to what the assistant said before it, or to its other calls
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": ""})
                messages[-1].setdefault("tool_calls", []).append(item.plain())
        return tuple(messages)

    def toolset(self) -> Toolset | None:
        """The tools that the answer may call."""
        if not self.tools:
            return None
        only = self.tool_choice.name if isinstance(self.tool_choice, NamedFunctionTool) else None
        return Toolset(
            tools=tuple(tool.plain() for tool in self.tools),
            mode="required" if isinstance(self.tool_choice, NamedFunctionTool) else self.tool_choice or "auto",
            only=only,
            parallel=self.parallel_tool_calls is not False,
        )


class ResponsesUsage(Shape):
    """Tokens."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class OutputItem(Shape):
    """A message, thinking or a function call."""

    id: str
    type: Literal["message", "reasoning", "function_call"]
    status: Status
    role: Literal["assistant"] | None = None
    content: list[dict[str, Any]] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
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
