"""An agent at work: what comes next is read from the steps that are written down, so that anybody can go on from them.

A turn of the model is asked again when it was cut short. A call whose beginning is written and whose end is not may
have happened: it is made again only where that is harmless or its tool's receipt says that it did not happen, and is
else reported as uncertain. Not here: whose run it is and who may work on it (``journal``, ``desk``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from pagoda.core.errors import BadOutput, ContextTooLong
from pagoda.core.ports import Inference
from pagoda.core.runs.record import now
from pagoda.core.types import Call
from pagoda.logic.agents.journal import Journal
from pagoda.logic.agents.plan import AgentPlan, Move, Step, key_of
from pagoda.logic.agents.strategies import SQUEEZES, Round, rounds_of, strategy_for, words
from pagoda.logic.inference.answer import Answer, collect
from pagoda.logic.inference.calling.wording import Language, language_of
from pagoda.logic.tools.performing import Outcome, perform
from pagoda.logic.tools.tool import Occasion, Tool
from pagoda.service.keys.key import NANO
from pagoda.service.limits.prices import PriceTable, spell_money

logger = logging.getLogger(__name__)

_MOST_PROBLEMS = 4
"""Turns in a row that come to nothing before the agent must answer."""
_MOST_REPEATS = 2
"""Equal calls that are dropped before the agent must answer."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the work ended: with an answer, or waiting for people."""

    status: str
    answer: str | None = None
    limited: str | None = None


@dataclass(frozen=True, slots=True)
class Means:
    """What all runs are worked on with."""

    inference: Inference
    journal: Journal
    prices: PriceTable


class Work:
    """The work on one run by whoever has taken it."""

    def __init__(
        self,
        run_id: str,
        plan: AgentPlan,
        tools: Sequence[Tool],
        means: Means,
        call: Call,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._id = run_id
        self._plan = plan
        self._tools = {tool.name: tool for tool in tools}
        self._delegates = any(tool.delegates for tool in tools)
        self._inference = means.inference
        self._journal = means.journal
        self._price = means.prices.of(plan.model)
        self._currency = means.prices.currency
        self._call = call
        self._changed = changed
        self._strategy = strategy_for(plan, tools)
        self._steps: list[Step] = []
        self._held: list[Step] = []
        """Ends of harmless calls that are not written yet."""

    async def perform(self) -> Ending:
        """Go on until there is an answer or only people can help. Raises ``PagodaError`` where the model fails."""
        self._steps = await self._journal.steps(self._id)
        while True:
            open_calls = [step for step in self._steps if step.kind == "call" and not step.settled]
            if ready := [step for step in open_calls if step.state != "waiting"]:
                await self._make(ready)
            elif open_calls:
                await self._write()
                fresh = await self._journal.steps(self._id)
                if all(step.state == "waiting" for step in fresh if step.kind == "call" and not step.settled):
                    return Ending("waiting")
                self._steps = fresh
            elif (ending := self._ending()) is not None:
                return ending
            else:
                await self._turn()

    # -- turns of the model -------------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        """One turn: written down, asked, written down with the calls that come of it."""
        rounds = rounds_of(self._steps)
        last = self._steps[-1] if self._steps else None
        if last is not None and last.kind == "model" and last.output is None:  # it was cut short
            step = last
        else:
            why = self._limit(rounds, await self._journal.spent_below(self._id) if self._delegates else (0, 0))
            limit = None if why is None else words().say("en", why[0], n=str(why[1]))
            asked = {"purpose": "act" if why is None else "final", "limit": limit, "why": why}
            step = Step(len(self._steps), "model", "begun", asked, begun=now())
            self._steps.append(step)
            await self._write(step)
        final = step.input["purpose"] == "final"
        move = await self._asked(rounds, final=final, place=step.place)
        step.output, step.state, step.ended = move.to_json(), "done", now()
        calls = self._planned(move, rounds, step.place)
        self._steps += calls
        await self._write(step, *calls)

    async def _asked(self, rounds: Sequence[Round], *, final: bool, place: int) -> Move:
        for squeeze in range(SQUEEZES):
            request = self._strategy.request(rounds, final=final, squeeze=squeeze)
            try:
                answer: Answer = await collect(self._inference, request, self._call_of(place))
                move = self._strategy.read(answer, final=final)
                used = answer.usage
                move.money = self._price.cost(used.prompt_tokens, used.cached_tokens, used.completion_tokens)
                return move
            except ContextTooLong:
                if squeeze == SQUEEZES - 1:
                    raise
            except BadOutput as error:
                return Move(problem=error.message)
        raise RuntimeError("the last squeeze ends in an answer or an error")

    def _planned(self, move: Move, rounds: Sequence[Round], turn: int) -> list[Step]:
        """The calls of a turn as steps; one that equals an earlier one is dropped with the earlier result."""
        earlier = {_fingerprint(step.input): step for each in rounds for step in each.calls if step.state == "done"}
        room = self._plan.limits.calls - sum(len(each.calls) for each in rounds)
        steps: list[Step] = []
        for wanted in move.calls[: max(room, 0)]:
            place = turn + 1 + len(steps)
            tool = self._tools.get(wanted.tool)
            waits = tool is not None and (tool.needs_approval or tool.name in self._plan.approve)
            about: dict[str, Any] = {
                "id": wanted.id,
                "tool": wanted.tool,
                "arguments": wanted.arguments,
                "key": key_of(self._id, place),
                "turn": turn,
                "needs_approval": waits,
            }
            step = Step(place, "call", "waiting" if waits else "planned", about)
            if tool is not None and tool.repeatable and not waits:  # whether it has begun does not matter
                step.state, step.begun = "begun", now()
            if (before := earlier.get(_fingerprint(about))) is not None:
                step.state, step.output, step.begun, step.ended = "dropped", before.output, None, now()
            steps.append(step)
        return steps

    def _limit(self, rounds: Sequence[Round], below: tuple[int, int]) -> tuple[str, float | str] | None:
        """The limit that is reached, by the name of its words and its number, if one is.

        ``below``: tokens and money that sub-agents have spent.
        """
        limits = self._plan.limits
        turns = [each.turn.output or {} for each in rounds]
        tokens = sum(turn["tokens"] for turn in turns) + below[0]
        money = sum(turn.get("money", 0) for turn in turns) + below[1]
        most = None if limits.money is None else round(limits.money * NANO)
        calls = [step for each in rounds for step in each.calls]
        problems = [bool((each.turn.output or {})["problem"]) for each in rounds]
        reached: dict[tuple[str, float | str], bool] = {
            ("turns", limits.turns): len(rounds) >= limits.turns,
            ("calls", limits.calls): len(calls) >= limits.calls,
            ("tokens", limits.tokens): tokens >= limits.tokens,
            ("money", spell_money(most or 0, self._currency)): most is not None and money >= most,
            ("seconds", limits.seconds): sum(step.seconds for step in self._steps) >= limits.seconds,
            ("problems", _MOST_PROBLEMS): len(problems) >= _MOST_PROBLEMS and all(problems[-_MOST_PROBLEMS:]),
            ("repeats", _MOST_REPEATS): sum(step.state == "dropped" for step in calls) >= _MOST_REPEATS,
        }
        return next((why for why, is_reached in reached.items() if is_reached), None)

    def _ending(self) -> Ending | None:
        """The end, if the last turn was the last."""
        if not self._steps or (last := self._steps[-1]).kind != "model" or last.output is None:
            return None
        language = self._language
        final, limit = last.output["final"], last.input.get("limit")
        if limit is not None:
            why, number = last.input["why"]
            said = words().say(language, "limited", limit=words().say(language, why, n=str(number)))
            return Ending("done", f"{final or words().say(language, 'nothing')}\n\n{said}", limit)
        return None if final is None else Ending("done", final or words().say(language, "nothing"))

    @property
    def _language(self) -> Language:
        return language_of([{"role": "user", "content": self._plan.task}])

    def _call_of(self, place: int) -> Call:
        """The call of a step: a request of its own, within the bounds of whoever began or resumed the run."""
        return replace(self._call, request_id=f"{self._call.request_id}.{place}")

    # -- calls of tools -----------------------------------------------------------------------------------------------

    async def _make(self, steps: Sequence[Step]) -> None:
        """Make calls that do not depend on each other, at once."""
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(self._make_one(step))

    async def _make_one(self, step: Step) -> None:
        tool = self._tools.get(step.input["tool"])
        if tool is None:
            known = ", ".join(self._tools)
            await self._settle(step, Outcome(error=f"there is no tool {step.input['tool']!r}; there are: {known}"))
            return
        key = step.input["key"]
        if step.state == "begun" and not tool.repeatable:
            found = await tool.receipt(key) if tool.receipt is not None else None
            if found is not None:
                await self._settle(step, Outcome(found))
                return
            if tool.receipt is None:
                await self._report(step, "the work was cut short while the call was being made")
                return
        if not (tool.repeatable and step.state == "begun"):
            step.state, step.begun = "begun", now()
            await self._write(step)
        try:
            outcome = await perform(tool, step.input["arguments"], Occasion(call=self._call_of(step.place), key=key))
        except asyncio.CancelledError:
            if not tool.repeatable and tool.receipt is None:
                await asyncio.shield(self._report(step, "the run was stopped while the call was being made"))
            raise
        await self._settle(step, outcome, lasting=not tool.repeatable)

    async def _settle(self, step: Step, outcome: Outcome, *, lasting: bool = True) -> None:
        """Write the end down: at once where it must not be lost, else with the turn that follows at once."""
        step.state, step.ended = "done", now()
        step.output = {"result": outcome.result, "error": outcome.error}
        if lasting or any(each.kind == "call" and not each.settled for each in self._steps):
            await self._write(step)
        else:
            self._held.append(step)

    async def _report(self, step: Step, reason: str) -> None:
        """Say that nobody knows whether a call happened."""
        step.state, step.ended, step.output = "uncertain", now(), {"reason": reason}
        await self._write(step)

    async def _write(self, *steps: Step) -> None:
        held, self._held = self._held, []
        await self._journal.write(self._id, *held, *steps)
        self._changed()


def _fingerprint(about: dict[str, Any]) -> bytes:
    """What makes two calls the same."""
    return orjson.dumps([about["tool"], about["arguments"]], option=orjson.OPT_SORT_KEYS)
