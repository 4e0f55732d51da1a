"""Evaluations at work: what a run of the kind ``bfcl`` does. Items that have an answer are not asked again.

Not here: evaluations of agents (``acting``).
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pagoda.application.client import home_door
from pagoda.application.sheet import Sheet, spread
from pagoda.core.errors import BadOutput, ContextTooLong, Rejected
from pagoda.core.ports import Inference
from pagoda.core.runs import RunContext
from pagoda.core.types import Call, Generation, Json, Sampling, Toolset
from pagoda.logic.evaluation.bfcl import CALLABLE, IRRELEVANT, Item, names_right, read_items, wrong
from pagoda.logic.inference.answer import Answer, gather
from pagoda.logic.inference.calling.calling import check_calls, read_calls
from pagoda.logic.inference.calling.wording import describe, introduced, language_of, say, version

_FENCED = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run's config."""

    data: str
    model: str
    mode: str = "required"
    """``required`` and ``auto`` as ``tool_choice``; ``unconstrained``: the same prompt, the answer read as it comes."""
    categories: tuple[str, ...] = ()
    limit: int = 0
    """Items of a category, evenly spread over it; 0: all."""
    max_tokens: int = 512
    parallel: int = 4


async def run_bfcl(context: RunContext) -> Mapping[str, Json]:
    """Ask every item that has no answer yet, and count."""
    config = dict(context.config)
    plan = Plan(**{**config, "categories": tuple(config.get("categories") or ())})
    items = list(_items(plan))
    async with home_door(context.settings, os.environ) as door:
        rows = await Sheet(context, items, lambda item: item.id).fill(
            lambda item: _row(item, plan, door), plan.parallel
        )
    return {"wording": version(), "mode": plan.mode, **figures(rows)}


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts by category and together: items, valid answers, right tools, right answers, and calls at all."""
    by_category: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_category[row["category"]].append(row)
    return {"categories": {name: _count(those) for name, those in by_category.items()}, "all": _count(rows)}


def _count(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    told = {word: sum(bool(row[word]) for row in rows) for word in ("valid", "names", "right")}
    return {"items": len(rows), **told, "called": sum(bool(row["calls"]) for row in rows)}


def _items(plan: Plan) -> Iterator[Item]:
    usual = (*CALLABLE, IRRELEVANT) if plan.mode == "auto" else CALLABLE
    for category in plan.categories or usual:
        yield from spread(read_items(Path(plan.data), category), plan.limit)


async def _row(item: Item, plan: Plan, door: Inference) -> dict[str, Any]:
    toolset = Toolset(tools=item.tools, mode="auto" if plan.mode == "auto" else "required", parallel=item.several)
    row: dict[str, Any] = {"category": item.category, "calls": [], "error": None}
    try:
        if plan.mode == "unconstrained":
            calls = await _freely(item, toolset, plan, door)
        else:
            wanted = _wanted(plan, item.messages, toolset)
            answer = await gather(door.complete(wanted, Call(purpose="evaluation")), wanted)
            calls = [(call.name, orjson.loads(call.arguments)) for call in answer.choices[0].calls]
            check_calls(calls, toolset)
        row["calls"] = [{"name": name, "arguments": arguments} for name, arguments in calls]
    except (BadOutput, ContextTooLong, Rejected, orjson.JSONDecodeError) as error:  # of this item; others are of all
        return row | {"valid": False, "names": False, "right": False, "error": str(error)}
    why = wrong(calls, item)
    return row | {"valid": True, "names": names_right(calls, item), "right": why is None, "error": why}


async def _freely(item: Item, toolset: Toolset, plan: Plan, door: Inference) -> list[tuple[str, Any]]:
    """The calls in an answer that nothing constrained, in a fence or bare. Raises ``BadOutput``."""
    what = "calls" if item.several else "call"
    instruction = say(language_of(item.messages), what, tools=describe(item.tools))
    wanted = _wanted(plan, introduced(item.messages, instruction), None)
    answer: Answer = await gather(door.complete(wanted, Call(purpose="evaluation")), wanted)
    fenced = _FENCED.search(answer.text)
    calls = read_calls((fenced[1] if fenced else answer.text).strip())
    check_calls(calls, toolset)
    return calls


def _wanted(plan: Plan, messages: Sequence[Any], toolset: Toolset | None) -> Generation:
    return Generation(
        model=plan.model,
        messages=tuple(messages),
        sampling=Sampling(temperature=0.0),
        max_tokens=plan.max_tokens,
        toolset=toolset,
    )
