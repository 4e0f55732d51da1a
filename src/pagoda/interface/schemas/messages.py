"""``POST /v1/messages`` and ``/v1/messages/count_tokens``: Anthropic's form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from pagoda.interface.schemas.shared import MOST_TOKENS, Length, ModelName, Shape, Strict, Temperature, branch_of


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


Block = Annotated[
    Annotated[TextBlock, Tag("<text>")] | Annotated[ThinkingBlock, Tag("<thinking>")], Discriminator(branch_of)
]


def text_of(content: str | Iterable[TextBlock | ThinkingBlock]) -> str:
    """The text of a content, without thinking."""
    if isinstance(content, str):
        return content
    return "".join(block.text for block in content if isinstance(block, TextBlock))


class Turn(Strict):
    """One message of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Field(min_length=1)]


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
        turns = [{"role": turn.role, "content": text_of(turn.content)} for turn in self.messages]
        system = text_of(self.system or "")
        return tuple([{"role": "system", "content": system}, *turns] if system else turns)

    @property
    def prefilled(self) -> bool:
        """Whether the answer continues the last message."""
        return self.messages[-1].role == "assistant"


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

    @property
    def shows_thinking(self) -> bool:
        """Whether thinking is part of the answer."""
        return self.thinking is not None and self.thinking.type != "disabled" and self.thinking.display != "omitted"


class AnswerBlock(Shape):
    """A piece of the answer: text or thinking."""

    type: Literal["text", "thinking"]
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None


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
