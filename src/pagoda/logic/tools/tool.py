"""A tool as a value: what it is called, which arguments it takes, what it changes, and how long it may take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pagoda.core.types import Call, Json, ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """For whom and on what occasion a tool is called."""

    call: Call = field(default_factory=Call)
    """Who asks, and within which bounds: a tool that asks a model does so by it, so that the key's limits hold."""
    key: str = ""
    """The same for every attempt at one call: a tool that hands it on lets the other side recognise a repetition."""


Perform: TypeAlias = Callable[[Mapping[str, Any], Occasion], Awaitable[Json]]
Receipt: TypeAlias = Callable[[str], Awaitable[Json | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """Something that can be done with arguments."""

    name: str
    description: str
    parameters: Mapping[str, Json] = field(default_factory=lambda: {"type": "object", "properties": {}})
    """JSON Schema of the arguments."""
    perform: Perform
    returns: Mapping[str, Json] | None = None
    """JSON Schema of the result, which is then checked."""
    read_only: bool = False
    """It changes nothing: it may be called again at any time."""
    idempotent: bool = False
    """A second call with the same ``Occasion.key`` changes nothing more."""
    needs_approval: bool = False
    """A person must allow each call."""
    agent_model: str = ""
    """Of another agent, which this is then: the model that it asks. Its run is counted with its caller's."""
    receipt: Receipt | None = None
    """Tells of a key what its call gave, or ``None`` where no such call has happened, for certain."""
    seconds: float = 30.0
    """Longest time of one attempt."""
    characters: int = 20_000
    """Longest result that is shown; what is longer is cut and says so."""
    attempts: int = 1
    """Attempts at a call that fails and may succeed later; more than one only where repeating is harmless."""

    @property
    def repeatable(self) -> bool:
        """Whether a call whose outcome is unknown may simply be made again."""
        return self.read_only or self.idempotent

    @property
    def delegates(self) -> bool:
        """Whether it is another agent."""
        return bool(self.agent_model)

    def spec(self) -> ToolSpec:
        """The tool as models are told of it."""
        return ToolSpec(name=self.name, description=self.description, parameters=self.parameters)

    def to_json(self) -> dict[str, Any]:
        """The tool as people are told of it."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
            "read_only": self.read_only,
            "idempotent": self.idempotent,
            "needs_approval": self.needs_approval,
            "seconds": self.seconds,
        }
