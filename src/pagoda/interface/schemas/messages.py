"""``POST /v1/messages`` and ``/v1/messages/count_tokens``: Anthropic's form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import Discriminator, Field, Tag, model_validator

from pagoda.core.types import ToolMode, Toolset, ToolSpec
from pagoda.interface.schemas.chat import ToolName
from pagoda.interface.schemas.shared import MOST_TOKENS, Length, ModelName, Shape, Strict, Temperature, branch_of

B = TypeVar("B", bound=Strict)


class CacheControl(Strict):
    """A wish to keep a prefix at hand; prefixes are always kept, so it changes nothing."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(Strict):
    """A piece of text."""

    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None
    citations: None = None


class ThinkingBlock(Strict):
    """Thinking of an earlier answer, as it came; models are not shown it again."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class ToolUseBlock(Strict):
    """A tool call of an earlier answer, as it came."""

    type: Literal["tool_use"]
    id: str = Field(min_length=1, max_length=200)
    name: ToolName
    input: dict[str, Any]
    cache_control: CacheControl | None = None

    def plain(self) -> dict[str, Any]:
        """The call as engines take it."""
        function = {"name": self.name, "arguments": orjson.dumps(self.input).decode()}
        return {"id": self.id, "type": "function", "function": function}


class ToolResultBlock(Strict):
    """What a tool call gave."""

    type: Literal["tool_result"]
    tool_use_id: str = Field(min_length=1, max_length=200)
    content: str | list[TextBlock] = ""
    is_error: bool | None = None
    cache_control: CacheControl | None = None

    def plain(self) -> dict[str, Any]:
        """The message as engines take it."""
        text = text_of(self.content)
        content = f"Error: {text}" if self.is_error else text
        return {"role": "tool", "tool_call_id": self.tool_use_id, "content": content}


Block = Annotated[
    Annotated[TextBlock, Tag("<text>")]
    | Annotated[ThinkingBlock, Tag("<thinking>")]
    | Annotated[ToolUseBlock, Tag("<tool_use>")]
    | Annotated[ToolResultBlock, Tag("<tool_result>")],
    Discriminator(branch_of),
]


def text_of(content: str | Iterable[object]) -> str:
    """The text of a content, without thinking and tools."""
    if isinstance(content, str):
        return content
    return "".join(block.text for block in content if isinstance(block, TextBlock))


class Turn(Strict):
    """One message of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Turn:
        if self.role != "assistant" and self.blocks(ToolUseBlock):
            raise ValueError("a tool_use belongs to the role assistant")
        if self.role != "user" and self.blocks(ToolResultBlock):
            raise ValueError("a tool_result belongs to the role user")
        return self

    def blocks(self, kind: type[B]) -> list[B]:
        """The blocks of a kind."""
        return [] if isinstance(self.content, str) else [each for each in self.content if isinstance(each, kind)]

    def plain(self) -> list[dict[str, Any]]:
        """The turn as messages that engines take: results of tools come before what is said beside them."""
        message: dict[str, Any] = {"role": self.role, "content": text_of(self.content)}
        if calls := [block.plain() for block in self.blocks(ToolUseBlock)]:
            return [message | {"tool_calls": calls}]
        results = [block.plain() for block in self.blocks(ToolResultBlock)]
        return results + ([message] if message["content"] or not results else [])


class Metadata(Strict):
    """Kept for your own use; does not change the answer."""

    user_id: str | None = Field(None, max_length=500)


class Thinking(Strict):
    """Whether the model's thinking is shown; whether it thinks is the model's own habit."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: int | None = Field(None, ge=1024, le=MOST_TOKENS, description="Not enforced; the answer warns.")
    display: Literal["summarized", "omitted"] | None = None


class JsonOutput(Strict):
    """JSON valid against a schema."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Strict):
    """The form of the answer."""

    format: JsonOutput | None = None


class CountRequest(Strict):
    """A conversation whose tokens are counted."""

    model: ModelName | None = None
    messages: list[Turn] = Field(min_length=1, max_length=100_000)
    system: str | list[TextBlock] | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None
    speed: Literal["standard"] | None = None

    def plain(self) -> tuple[dict[str, Any], ...]:
        """The conversation as engines take it."""
        turns = [message for turn in self.messages for message in turn.plain()]
        system = text_of(self.system or "")
        return tuple([{"role": "system", "content": system}, *turns] if system else turns)

    @property
    def prefilled(self) -> bool:
        """Whether the answer continues the last message."""
        return self.messages[-1].role == "assistant"


class ToolDefinition(Strict):
    """A tool that the model may call."""

    type: Literal["custom"] | None = None
    name: ToolName
    description: str | None = Field(None, max_length=100_000)
    input_schema: dict[str, Any] = Field(description="JSON Schema of the arguments, an object.")
    strict: bool | None = Field(None, description="Changes nothing: arguments are always checked.")
    cache_control: CacheControl | None = None

    def plain(self) -> ToolSpec:
        """The tool as engines take it."""
        return ToolSpec(name=self.name, description=self.description or "", parameters=self.input_schema)


class ToolChoice(Strict):
    """Whether a tool must be called, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: ToolName | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> ToolChoice:
        if (self.type == "tool") != (self.name is not None):
            raise ValueError("name belongs to the type tool, which needs it")
        return self


_MODES: dict[str, ToolMode] = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}


class MessagesRequest(CountRequest):
    """A conversation to be answered."""

    max_tokens: Length
    stop_sequences: list[Annotated[str, Field(min_length=1, max_length=500)]] | None = Field(None, max_length=16)
    temperature: Temperature | None = None
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=MOST_TOKENS)
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    stream: bool | None = None
    tools: list[ToolDefinition] | None = Field(None, min_length=1, max_length=128)
    tool_choice: ToolChoice | None = None

    @model_validator(mode="after")
    def _check(self) -> MessagesRequest:
        if self.tool_choice is not None and self.tools is None:
            raise ValueError("tool_choice needs tools")
        return self

    def toolset(self) -> Toolset | None:
        """The tools that the answer may call."""
        if self.tools is None:
            return None
        choice = self.tool_choice or ToolChoice(type="auto")
        return Toolset(
            tools=tuple(tool.plain() for tool in self.tools),
            mode=_MODES[choice.type],
            only=choice.name,
            parallel=choice.disable_parallel_tool_use is not True,
        )

    @property
    def shows_thinking(self) -> bool:
        """Whether thinking is part of the answer."""
        return self.thinking is not None and self.thinking.type != "disabled" and self.thinking.display != "omitted"


class AnswerBlock(Shape):
    """A piece of the answer: text, thinking, or a tool call."""

    type: Literal["text", "thinking", "tool_use"]
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None


class MessagesUsage(Shape):
    """Tokens; all of the prompt are ``input_tokens`` and those from the cache together."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int


class MessagesAnswer(Shape):
    """A whole answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[AnswerBlock]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"] | None
    stop_sequence: str | None
    usage: MessagesUsage
    warnings: list[str] | None = None


class CountAnswer(Shape):
    """How many tokens the prompt has."""

    input_tokens: int


class MessagesProblem(Shape):
    """Anthropic's shape of an error."""

    class Body(Shape):
        """What went wrong."""

        type: str
        message: str

    type: Literal["error"]
    error: Body
