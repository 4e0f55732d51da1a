"""What an agent is asked to do, with what and within which limits; and its steps as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias, get_args

from pagoda.core.types import Json

StrategyName: TypeAlias = Literal["functions", "react"]
STRATEGIES: tuple[StrategyName, ...] = get_args(StrategyName)
StepState: TypeAlias = Literal["planned", "waiting", "approved", "begun", "done", "refused", "uncertain", "dropped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where an agent must answer with what it has."""

    turns: int = 8
    """Turns of the model before the last one."""
    calls: int = 16
    tokens: int = 20_000
    """Of all prompts and answers together."""
    seconds: float = 600.0
    """Of models and tools at work; waiting for people is not counted."""
    money: float | None = None
    """In the currency of the operator's prices; ``None``: any. Sub-agents' turns are counted too, like their tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPlan:
    """The config of a run of the kind ``agent``."""

    task: str
    tools: tuple[str, ...]
    model: str
    strategy: StrategyName = "functions"
    first: Literal["auto", "required"] = "required"
    """Whether the first turn must call a tool."""
    approve: tuple[str, ...] = ()
    """Tools that need approval here although they need none by themselves."""
    limits: Limits = Limits()
    max_tokens: int = 512
    """New tokens of one turn."""
    temperature: float | None = 0.0
    seed: int | None = None
    instructions: str = ""
    history: tuple[Mapping[str, Json], ...] = ()
    """Earlier messages of the conversation."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call that the model wants made."""

    id: str
    tool: str
    arguments: Json


@dataclass(slots=True)
class Move:
    """What a turn of the model came to: calls, a final answer, or a problem that it is told of."""

    text: str = ""
    """As the model wrote it."""
    thought: str = ""
    calls: Sequence[Wanted] = ()
    final: str | None = None
    problem: str | None = None
    tokens: int = 0
    money: int = 0
    """Billionths of the currency."""

    def to_json(self) -> dict[str, Any]:
        """The output of a step of the kind ``model``."""
        return {
            "text": self.text,
            "thought": self.thought,
            "calls": [{"id": call.id, "tool": call.tool, "arguments": call.arguments} for call in self.calls],
            "final": self.final,
            "problem": self.problem,
            "tokens": self.tokens,
            "money": self.money,
        }


@dataclass(slots=True)
class Step:
    """A step as it is written down.

    A turn of the model has ``input`` ``{"purpose": "act" | "final", "limit": ...}`` and a ``Move`` as output, a call
    ``{"id", "tool", "arguments", "key", "turn"}`` and ``{"result", "error", "by", "reason"}``.
    """

    place: int
    kind: Literal["model", "call"]
    state: StepState
    input: dict[str, Any] = field(default_factory=dict)
    output: dict[str, Any] | None = None
    begun: datetime | None = None
    ended: datetime | None = None

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.ended - self.begun).total_seconds() if self.begun and self.ended else 0.0

    @property
    def settled(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ("done", "refused", "uncertain", "dropped")


def key_of(run_id: str, place: int) -> str:
    """The idempotency key of a call: the same at every attempt."""
    return f"{run_id}:{place}"
