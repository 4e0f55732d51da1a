"""Sub-agents: agents that other agents call as tools. Each is described in a YAML file; its run is a run of its own.

Their tools need no approval and are no sub-agents, so that one never waits for people and never calls itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import Json
from pagoda.logic.agents.journal import AgentRun
from pagoda.logic.agents.plan import AgentPlan, Limits, StrategyName
from pagoda.logic.tools.shelf import Toolshelf
from pagoda.logic.tools.tool import Occasion, Tool

Delegate = Callable[[AgentPlan, Occasion], Awaitable[AgentRun]]
"""Has a plan worked on to its end, on behalf of the call that wants it."""
_SLACK_SECONDS = 60.0
_PARAMETERS: Mapping[str, Json] = {
    "type": "object",
    "properties": {
        "task": {
            "type": "string",
            "minLength": 1,
            "maxLength": 4000,
            "description": "What it is to do, with all that it must know: it sees nothing else.",
        }
    },
    "required": ["task"],
    "additionalProperties": False,
}


class SubAgent(BaseModel):
    """What stands in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = Field(min_length=1)
    """For the model that may call it."""
    tools: list[str] = Field(min_length=1)
    instructions: str = ""
    model: str | None = None
    """By default the one that answers chats."""
    strategy: StrategyName = "functions"
    first: Literal["auto", "required"] = "required"
    max_tokens: int = Field(512, ge=1)
    turns: int = Field(8, ge=1)
    calls: int = Field(16, ge=1)
    tokens: int = Field(20_000, ge=1)
    seconds: float = Field(300.0, gt=0)

    def plan(self, task: str, model: str) -> AgentPlan:
        """The plan of a run; ``model`` where the file names none."""
        return AgentPlan(
            task=task,
            tools=tuple(self.tools),
            model=self.model or model,
            strategy=self.strategy,
            first=self.first,
            instructions=self.instructions,
            max_tokens=self.max_tokens,
            limits=Limits(turns=self.turns, calls=self.calls, tokens=self.tokens, seconds=self.seconds),
        )


def read_subagents(files: Mapping[str, str]) -> dict[str, SubAgent]:
    """Sub-agents by name, from files by name. Raises ``InvalidRequest`` with the first mistake."""
    found = {}
    for name, path in files.items():
        try:
            values = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
            found[name] = SubAgent.model_validate(values)
        except OSError as error:
            raise InvalidRequest(f"tools.agents.{name}: {path} cannot be read ({error.strerror}).") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InvalidRequest(
                f"tools.agents.{name}: {path} is not YAML ({' '.join(str(error).split())})."
            ) from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"]) or "the file"
            raise InvalidRequest(f"tools.agents.{name}: {key} in {path}: {first['msg']}.") from error
    return found


def subagent_tools(agents: Mapping[str, SubAgent], model: str, delegate: Delegate) -> list[Tool]:
    """Each as a tool: it may be called again, since a call finds the run that it has begun before."""

    def tool_of(name: str, agent: SubAgent) -> Tool:
        async def perform(arguments: Mapping[str, Any], occasion: Occasion) -> Json:
            run = await delegate(agent.plan(arguments["task"], model), occasion)
            return {"answer": run.answer, "run": run.id} | ({"limited": run.limited} if run.limited else {})

        return Tool(
            name=name,
            description=agent.description,
            parameters=_PARAMETERS,
            perform=perform,
            idempotent=True,
            agent_model=agent.model or model,
            seconds=agent.seconds + _SLACK_SECONDS,
        )

    return [tool_of(name, agent) for name, agent in agents.items()]


def check_subagents(agents: Mapping[str, SubAgent], shelf: Toolshelf) -> None:
    """Raise ``NotFound`` for a sub-agent's tool that is not there, ``InvalidRequest`` for one it may not call."""
    for name, agent in agents.items():
        unfit: Sequence[Tool] = [tool for tool in shelf.choose(agent.tools) if tool.needs_approval or tool.delegates]
        if unfit:
            why = "needs approval" if unfit[0].needs_approval else "is a sub-agent itself"
            raise InvalidRequest(
                f"tools.agents.{name}: its tool {unfit[0].name} {why}, which a sub-agent may not call."
            )
