"""``/api/v1/agents`` and ``/api/v1/tools``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool

from pagoda.interface.schemas.shared import MOST_TOKENS, Length, ModelName, Shape, Strict, Temperature
from pagoda.logic.agents.plan import Limits, StrategyName

ToolNames = Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=128)]


class AgentLimits(Strict):
    """Where an agent must answer with what it has."""

    turns: int = Field(8, ge=1, le=1000)
    calls: int = Field(16, ge=1, le=10_000)
    tokens: int = Field(20_000, ge=1, le=MOST_TOKENS)
    seconds: float = Field(600.0, gt=0, le=86_400)
    money: float | None = Field(None, gt=0, le=1_000_000, description="In the currency of the operator's prices.")

    def plain(self) -> Limits:
        """As the work takes them."""
        return Limits(**self.model_dump())


class PastMessage(Strict):
    """A message of the conversation before the task."""

    role: Literal["user", "assistant"]
    content: str


class AgentRequest(Strict):
    """A task for an agent."""

    task: str = Field(min_length=1, max_length=100_000)
    tools: ToolNames = Field(default_factory=list, description="Names of tools it may call.")
    model: ModelName | None = None
    strategy: StrategyName = "functions"
    first: Literal["auto", "required"] = Field("required", description="Whether the first turn must call a tool.")
    approve: ToolNames = Field(default_factory=list, description="Tools that need approval in this run as well.")
    limits: AgentLimits = Field(default_factory=AgentLimits)
    max_tokens: Length = 512
    temperature: Temperature | None = 0.0
    seed: int | None = Field(None, ge=0, le=2**31 - 1)
    instructions: str = Field("", max_length=100_000)
    history: list[PastMessage] = Field(default_factory=list, max_length=1000)
    stream: StrictBool = True


class DecisionRequest(Strict):
    """What becomes of calls that wait for approval."""

    approve: StrictBool
    step: int | None = Field(None, ge=0, le=MOST_TOKENS, description="Only this call; absent: all that wait.")
    reason: str = Field("", max_length=2000, description="Why, for the model.")
    stream: StrictBool = True


class AgentRunObject(Shape):
    """A run."""

    id: str
    object: Literal["agent.run"]
    status: Literal["created", "running", "waiting", "interrupted", "done", "failed", "cancelled"]
    task: str
    model: str
    tools: list[str]
    strategy: str
    limits: dict[str, float | None]
    created_at: float
    finished_at: float | None
    answer: str | None
    limited: str | None
    error: str | None
    events: list[dict[str, Any]] | None = None


class AgentRunList(Shape):
    """Runs, newest first."""

    object: Literal["list"]
    data: list[AgentRunObject]


class ToolObject(Shape):
    """A tool."""

    name: str
    description: str
    parameters: dict[str, Any]
    read_only: bool
    idempotent: bool
    needs_approval: bool
    seconds: float


class ToolList(Shape):
    """The tools."""

    object: Literal["list"]
    data: list[ToolObject]


class ToolCallRequest(Strict):
    """One call of a tool by hand."""

    arguments: dict[str, Any] = Field(default_factory=dict)
    approve: StrictBool = Field(False, description="Needed where the tool needs approval.")


class ToolCallAnswer(Shape):
    """What a call gave."""

    result: Any
    error: str | None
