"""``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pagoda.core.types import ToolMode, Toolset, ToolSpec
from pagoda.interface.schemas.prompts import NamedPrompt
from pagoda.interface.schemas.shared import Length, ModelName, SamplingFields, Shape, Strict, TokenUsage


class TextPart(Strict):
    """A part of a message."""

    type: Literal["text"]
    text: str


ToolName = Annotated[str, Field(pattern=r"^[\w.:/-]{1,128}$")]


class FunctionSpec(Strict):
    """A function that the model may call."""

    name: ToolName
    description: str | None = Field(None, max_length=100_000)
    parameters: dict[str, Any] | None = Field(None, description="JSON Schema of the arguments, an object.")
    strict: bool | None = Field(None, description="Changes nothing: arguments are always checked.")

    def plain(self) -> ToolSpec:
        """The function as engines take it."""
        given = {} if self.parameters is None else {"parameters": self.parameters}
        return ToolSpec(name=self.name, description=self.description or "", **given)


class ToolParameter(Strict):
    """A tool."""

    type: Literal["function"]
    function: FunctionSpec


class NamedFunction(Strict):
    """A function by its name."""

    name: ToolName


class NamedTool(Strict):
    """The one tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class FunctionCall(Strict):
    """A function's name and its arguments, which are JSON text."""

    name: ToolName
    arguments: str


class PastCall(Strict):
    """A call of an earlier answer, as it came."""

    id: str = Field(max_length=200)
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Strict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None
    tool_calls: list[PastCall] | None = Field(None, min_length=1, max_length=128)
    function_call: FunctionCall | None = Field(None, description="The older form of a single call.")
    tool_call_id: str | None = Field(None, max_length=200)
    name: str | None = Field(None, max_length=64)
    reasoning_content: str | None = Field(None, description="An earlier answer's thinking, for templates that show it.")
    refusal: None = None

    @model_validator(mode="after")
    def _check(self) -> ChatMessage:
        calls = self.tool_calls is not None or self.function_call is not None
        if calls and self.role != "assistant":
            raise ValueError("only an assistant's message makes tool calls")
        if self.content is None and not calls:
            raise ValueError("a message without tool calls needs content")
        if (self.tool_call_id is None) == (self.role == "tool"):
            raise ValueError("tool_call_id belongs to a message of the role tool, which needs it")
        if self.role == "function" and not self.name:
            raise ValueError("a message of the role function needs the function's name")
        return self

    def plain(self) -> dict[str, Any]:
        """The message as engines take it: text as one string, roles and calls in their newer form."""
        parts = self.content or ""
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        role = {"developer": "system", "function": "tool"}.get(self.role, self.role)
        message: dict[str, Any] = {"role": role, "content": text}
        if self.role == "function":
            message["tool_call_id"] = self.name
        elif self.name:
            message["name"] = self.name
        if self.role == "tool":
            message["tool_call_id"] = self.tool_call_id
        if self.tool_calls:
            message["tool_calls"] = [call.model_dump() for call in self.tool_calls]
        elif self.function_call is not None:  # the older form has no ids: its result names the function
            call = {"id": self.function_call.name, "type": "function", "function": self.function_call.model_dump()}
            message["tool_calls"] = [call]
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
    tools: list[ToolParameter] | None = Field(None, min_length=1, max_length=128)
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = Field(None, description="false allows one call at most.")
    functions: list[FunctionSpec] | None = Field(
        None, min_length=1, max_length=128, description="The older form of tools."
    )
    function_call: Literal["auto", "none"] | NamedFunction | None = None
    trust: StrictBool = Field(
        False, description="Extension: say how sure the answer is; not while streaming, and of one answer."
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
        if self.trust and (self.stream or (self.n or 1) > 1):
            raise ValueError("trust looks at one whole answer; leave stream and n out")
        if self.continue_final_message and (not self.messages or self.messages[-1].role != "assistant"):
            raise ValueError("continue_final_message needs the last message to be the assistant's")
        for older, newer in (("functions", "tools"), ("function_call", "tool_choice")):
            if getattr(self, older) is not None and (self.tools is not None or getattr(self, newer) is not None):
                raise ValueError(f"{older} is the older form of {newer}; give one")
        for choice, offered in (
            ("tool_choice", "tools"),
            ("parallel_tool_calls", "tools"),
            ("function_call", "functions"),
        ):
            if getattr(self, choice) is not None and not getattr(self, offered):
                raise ValueError(f"{choice} needs {offered}")
        if self.add_generation_prompt not in (None, not self.continue_final_message):
            raise ValueError("add_generation_prompt must be the opposite of continue_final_message; leave it out")
        return self

    @property
    def older_calls(self) -> bool:
        """Whether calls are wanted in their older form."""
        return self.functions is not None

    def toolset(self) -> Toolset | None:
        """The tools that the answer may call."""
        if self.older_calls:
            tools = [function.plain() for function in self.functions or ()]
            choice: Any = self.function_call
            only = choice.name if isinstance(choice, NamedFunction) else None
        else:
            tools = [tool.function.plain() for tool in self.tools or ()]
            choice = self.tool_choice
            only = choice.function.name if isinstance(choice, NamedTool) else None
        if not tools:
            return None
        mode: ToolMode = "required" if only is not None else choice or "auto"
        parallel = self.parallel_tool_calls is not False and not self.older_calls
        return Toolset(tools=tuple(tools), mode=mode, only=only, parallel=parallel)


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
    content: str | None
    refusal: None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    function_call: dict[str, Any] | None = None


class ChatChoice(Shape):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls", "function_call", "content_filter"]
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
    trust: dict[str, Any] | None = None
