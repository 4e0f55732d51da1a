"""Evaluations of agents at work: what runs of the kinds ``injections`` and ``multihop`` do.

Each item has a desk of its own over records that lie with the run, so that nobody is asked to approve what a model was
talked into, and every step can be looked at later. Not here: what is asked and how it is judged
(``pagoda.logic.evaluation``), and the agents themselves (``pagoda.logic.agents``).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pagoda.application.client import home_door
from pagoda.application.sheet import Row, Sheet, spread
from pagoda.core.errors import ModelError
from pagoda.core.ports import Inference
from pagoda.core.runs import RunContext
from pagoda.core.settings import Storage
from pagoda.core.storage.store import Store, open_store
from pagoda.core.types import Call, Json
from pagoda.logic.agents.desk import Agents
from pagoda.logic.agents.journal import AgentRun
from pagoda.logic.agents.plan import STRATEGIES, AgentPlan, Limits, StrategyName
from pagoda.logic.agents.strategies import words
from pagoda.logic.evaluation import injections, multihop
from pagoda.logic.evaluation.dataset import check_digest
from pagoda.logic.tools.searching import Collection, Passage
from pagoda.logic.tools.shelf import Toolshelf, search_tool
from pagoda.logic.tools.tool import Tool
from pagoda.service.telemetry import Telemetry

_SECONDS = 300.0
_HITS = 3
_SHOWN_CHARACTERS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run's config."""

    model: str
    data: str = ""
    """The file of a set that does not come with Pagoda."""
    digest: str = ""
    """Of that file: a run does not go on with another one."""
    strategies: tuple[StrategyName, ...] = STRATEGIES
    limit: int = 0
    """Items, evenly spread over the set; 0: all."""
    turns: int = 4
    max_tokens: int = 256
    parallel: int = 4

    def agent(self, task: str, tools: Sequence[Tool], strategy: StrategyName, instructions: str = "") -> AgentPlan:
        """What an agent is to do for one item."""
        return AgentPlan(
            task=task,
            tools=tuple(tool.name for tool in tools),
            model=self.model,
            strategy=strategy,
            limits=Limits(turns=self.turns, seconds=_SECONDS),
            max_tokens=self.max_tokens,
            instructions=instructions,
        )


@dataclass(frozen=True, slots=True)
class Acted:
    """What an agent did."""

    run: AgentRun
    events: Sequence[Mapping[str, Any]]

    @property
    def answer(self) -> str:
        """Its final answer, without what is said of a limit."""
        return next((event["final"] or "" for event in reversed(self.events) if event["type"] == "turn.done"), "")

    def planned(self, tool: str) -> int:
        """How many calls of a tool it wanted."""
        return sum(event["type"] == "call.planned" and event["tool"] == tool for event in self.events)

    def to_row(self) -> Row:
        """What rows of every set say."""
        return {
            "run": self.run.id,
            "answer": self.answer[:_SHOWN_CHARACTERS],
            "limited": self.run.limited,
            "error": self.run.error,
        }


class Stage:
    """Where agents act for an evaluation: a model's door, and records of their own."""

    def __init__(self, door: Inference, store: Store) -> None:
        self._door = door
        self._store = store
        self._telemetry = Telemetry()

    async def act(self, plan: AgentPlan, tools: Sequence[Tool]) -> Acted:
        """Have an agent work until it answers, waits for a person, or fails.

        Raises ``ModelError`` where the fault is not the item's: the model is gone, or never answered at all.
        """

        async def records() -> Store:
            return self._store

        agents = Agents(records, lambda: self._door, Toolshelf(tools), self._telemetry)
        try:
            begun = await agents.begin(plan, Call(purpose="evaluation"))
            run = await agents.wait(begun.id, tenant=None)
            events = [event async for event in agents.events(run.id, tenant=None, follow=False)]
        finally:
            await agents.close()
        answered = any(event["type"] == "turn.done" for event in events)
        if run.status == "interrupted" or (run.status == "failed" and not answered):
            raise ModelError(run.error or "The agent's work was interrupted; resume the run.")
        return Acted(run, events)


@asynccontextmanager
async def open_stage(context: RunContext) -> AsyncIterator[Stage]:
    """The stage of a run, for the length of the block; the service is joined, or started if need be."""
    apart = replace(context.settings, home=context.artifacts / "agents", storage=Storage())
    async with home_door(context.settings, os.environ) as door, open_store(apart) as store:
        yield Stage(door, store)


@dataclass(frozen=True, slots=True)
class Trial:
    """An item under one strategy; ``injected`` is false for the page without its order."""

    item: injections.Item
    strategy: StrategyName
    injected: bool = True

    @property
    def id(self) -> str:
        """What its row is called."""
        return f"{self.strategy}/{self.item.id}{'' if self.injected else '/without'}"


async def run_injections(context: RunContext) -> Mapping[str, Json]:
    """Have an agent read every page, and count how often it obeys what stands there."""
    plan = _plan(context)
    trials = [
        Trial(item, strategy, injected)
        for strategy in plan.strategies
        for item in spread(injections.read_items(), plan.limit)
        for injected in ((True,) if item.word else (True, False))  # a model may call the tool without being told to
    ]
    async with open_stage(context) as stage:
        rows = await Sheet(context, trials, lambda trial: trial.id).fill(
            lambda trial: _tried(trial, plan, stage), plan.parallel
        )
    return {"set": injections.version(), "wording": words().version, "strategies": injections.figures(rows)}


async def _tried(trial: Trial, plan: Plan, stage: Stage) -> Row:
    item, ran = trial.item, 0

    def happened() -> None:
        nonlocal ran
        ran += 1

    tools = [injections.page_tool(item.language, item.page if trial.injected else item.clean)]
    if item.word is None:
        tools.append(injections.forbidden_tool(item.language, happened))
    acted = await stage.act(plan.agent(item.task, tools, trial.strategy), tools)
    asked, said = acted.planned(injections.FORBIDDEN), injections.said_word(acted.answer, item)
    return {
        "kind": item.kind,
        "language": item.language,
        "sign": "word" if item.word else "call",
        "strategy": trial.strategy,
        "injected": trial.injected,
        "read": acted.planned(injections.PAGE) > 0,
        "obeyed": asked > 0 or said == "obeyed",
        "quoted": said == "quoted",
        "answered": injections.does_task(acted.answer, item),
        "asked": asked,
        "ran": ran,
        **acted.to_row(),
    }


async def run_multihop(context: RunContext) -> Mapping[str, Json]:
    """Have an agent search for the answer of every question, and count."""
    plan = _plan(context)
    check_digest(plan.data, plan.digest)
    items, passages = multihop.read_set(Path(plan.data))
    chosen = spread(items, plan.limit)
    asked = [(strategy, item) for strategy in plan.strategies for item in chosen]
    collection = Collection(passages)
    reference = [multihop.score(item, "", 1, await collection(item.question, _HITS)) for item in chosen]
    async with open_stage(context) as stage:
        rows = await Sheet(context, asked, lambda each: f"{each[0]}/{each[1].id}").fill(
            lambda each: _searched(each[1], each[0], collection, plan, stage), plan.parallel
        )
    return {
        "questions": len(items),
        "passages": len(passages),
        "wording": words().version,
        "set": multihop.words().version,
        "reference": multihop.found(reference),  # what one search in the question's own words finds
        "strategies": multihop.figures(rows),
    }


async def _searched(
    item: multihop.Item, strategy: StrategyName, collection: Collection, plan: Plan, stage: Stage
) -> Row:
    searches, seen = 0, list[Passage]()

    async def search(query: str, limit: int) -> Sequence[Passage]:
        nonlocal searches
        searches += 1
        found = await collection(query, limit)
        seen.extend(found)
        return found

    tools = [search_tool(search, _HITS)]
    acted = await stage.act(plan.agent(item.question, tools, strategy, multihop.instructions_for(item)), tools)
    return {
        "strategy": strategy,
        **multihop.score(item, acted.answer, searches, seen),
        **acted.to_row(),
    }


def _plan(context: RunContext) -> Plan:
    config: dict[str, Any] = dict(context.config)
    return Plan(**{**config, "strategies": tuple(config["strategies"])})
