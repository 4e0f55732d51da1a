"""How a turn is asked for and read: by function calling, or by ReAct's visible thought, action and observation.

What came before is told within the model's context by a stated rule: all of it; where that does not fit, the results
of all but the last round shortened; then only the last two rounds; then only the last, shortened. The task stays.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import orjson

from pagoda.core.errors import BadOutput
from pagoda.core.types import Generation, Message, Sampling, Toolset, ToolSpec, new_id
from pagoda.logic.agents.plan import AgentPlan, Move, Step, Wanted
from pagoda.logic.agents.reading import STOPS, read_move
from pagoda.logic.inference.answer import Answer
from pagoda.logic.inference.calling.calling import read_calls
from pagoda.logic.inference.calling.wording import Language, Wording, describe, language_of
from pagoda.logic.tools.performing import Outcome
from pagoda.logic.tools.tool import Tool

SQUEEZES = 4
"""How many rules of telling what came before there are, from all of it to the least."""
_SHORT = 200
_FINAL_TOOL = "final_answer"


@cache
def words() -> Wording:
    """The words for agents."""
    return Wording("pagoda.logic.agents")


@dataclass(frozen=True, slots=True)
class Round:
    """A turn of the model and the calls that came of it."""

    turn: Step
    calls: Sequence[Step]


class Strategy(Protocol):
    """A way to have a model act."""

    def request(self, rounds: Sequence[Round], *, final: bool, squeeze: int) -> Generation:
        """What to ask the model next; ``final``: for an answer with what is known."""
        ...

    def read(self, answer: Answer, *, final: bool) -> Move:
        """What its answer came to."""
        ...


def strategy_for(plan: AgentPlan, tools: Sequence[Tool]) -> Strategy:
    """The strategy that a plan names."""
    return ReAct(plan, tools) if plan.strategy == "react" else FunctionCalling(plan, tools)


def rounds_of(steps: Sequence[Step]) -> list[Round]:
    """The steps as rounds; a turn that has not ended begins none."""
    turns = [step for step in steps if step.kind == "model" and step.output is not None]
    return [
        Round(turn, [step for step in steps if step.kind == "call" and step.input["turn"] == turn.place])
        for turn in turns
    ]


def told(step: Step, language: Language, longest: int | None = None) -> str:
    """What the model is told of a call."""
    output = step.output or {}
    say = words().say
    match step.state:
        case "refused":
            return say(language, "refused", reason=str(output.get("reason") or "-"))
        case "uncertain":
            return say(language, "uncertain")
    text = Outcome(output.get("result"), output.get("error")).text()
    if longest is not None and len(text) > longest:
        text = text[:longest] + "..."
    if step.state == "dropped":
        return say(language, "repeated", result=text)
    return text


class _Common:
    """What both strategies share."""

    def __init__(self, plan: AgentPlan, tools: Sequence[Tool]) -> None:
        self._plan = plan
        self._tools = tools
        self._language: Language = language_of([{"role": "user", "content": plan.task}])

    def _generation(self, messages: Sequence[Message], **more: Any) -> Generation:
        return Generation(
            model=self._plan.model,
            messages=tuple(messages),
            sampling=Sampling(temperature=self._plan.temperature, seed=self._plan.seed),
            max_tokens=self._plan.max_tokens,
            reasoning="separate",
            **more,
        )

    def _say(self, what: str, **values: str) -> str:
        return words().say(self._language, what, **values)

    def _kept(self, rounds: Sequence[Round], squeeze: int) -> tuple[int, list[tuple[Round, int | None]]]:
        """How many rounds are left out, and the others with the length of their results."""
        kept = {0: len(rounds), 1: len(rounds), 2: 2, 3: 1}[squeeze]
        shown = list(rounds[len(rounds) - min(kept, len(rounds)) :])
        last = len(shown) - 1
        short = [None if squeeze == 0 or (squeeze < 3 and at == last) else _SHORT for at in range(len(shown))]
        return len(rounds) - len(shown), list(zip(shown, short, strict=True))


class FunctionCalling(_Common):
    """Calls in OpenAI's form, from any model (``pagoda.logic.inference.calling``)."""

    def request(self, rounds: Sequence[Round], *, final: bool, squeeze: int) -> Generation:
        """The conversation so far; for the final answer without tools."""
        plan = self._plan
        system = "\n\n".join(filter(None, (plan.instructions, self._say("functions"))))
        messages: list[Message] = [{"role": "system", "content": system}, *plan.history]
        messages.append({"role": "user", "content": plan.task})
        left_out, kept = self._kept(rounds, squeeze)
        if final or not self._tools:  # as plain text, which small models repeat less often than their own calls
            calls = [(step, longest) for each, longest in kept for step in each.calls if step.state != "dropped"]
            known = [self._known(*call) for call in calls]  # each result once, whatever was asked again
            messages[-1] = {"role": "user", "content": "\n\n".join((plan.task, *known, self._say("final")))}
            return self._generation(messages)
        if left_out:
            messages.append({"role": "user", "content": self._say("left_out", count=str(left_out))})
        for each, longest in kept:
            messages += self._told(each, longest)
        must = plan.first == "required" and not any(each.calls for each in rounds)
        tools = tuple(tool.spec() for tool in self._tools)
        return self._generation(messages, toolset=Toolset(tools=tools, mode="required" if must else "auto"))

    def _known(self, step: Step, longest: int | None) -> str:
        result = self._say("data", result=_fenced(told(step, self._language, longest)))
        arguments = orjson.dumps(step.input["arguments"]).decode()
        return self._say("known", tool=step.input["tool"], arguments=arguments, result=result)

    def read(self, answer: Answer, *, final: bool) -> Move:
        """Its calls, or its text as the final answer."""
        choice = answer.choices[0]
        move = Move(text=choice.text, thought=choice.reasoning, tokens=_tokens(answer))
        if choice.calls and not final:
            move.calls = [Wanted(call.id, call.name, orjson.loads(call.arguments or "{}")) for call in choice.calls]
        elif not final and (written := self._written(choice.text)):
            move.calls = written
        else:
            move.final = choice.text.strip()
        return move

    def _written(self, text: str) -> list[Wanted]:
        """The calls of known tools that a small model wrote down as its answer."""
        lines = [line for line in text.splitlines() if line.strip()]
        if not lines or lines[0].strip()[0] not in "{[":
            return []
        try:
            calls = [call for line in dict.fromkeys(lines) for call in read_calls(line)]
        except BadOutput:
            return []  # it is an answer that only begins like a call
        known = {tool.name for tool in self._tools}
        return [Wanted(new_id("call"), *call) for call in calls] if all(name in known for name, _ in calls) else []

    def _told(self, each: Round, longest: int | None) -> list[Message]:
        output = each.turn.output or {}
        if output["problem"]:
            return [{"role": "user", "content": self._say("problem", reason=output["problem"])}]
        if not each.calls:
            return [{"role": "assistant", "content": output["text"]}]
        calls = [
            {
                "id": step.input["id"],
                "type": "function",
                "function": {
                    "name": step.input["tool"],
                    "arguments": orjson.dumps(step.input["arguments"]).decode(),
                },
            }
            for step in each.calls
        ]
        results: list[Message] = [
            {
                "role": "tool",
                "tool_call_id": step.input["id"],
                "content": self._say("data", result=_fenced(told(step, self._language, longest))),
            }
            for step in each.calls
        ]
        return [{"role": "assistant", "content": output["text"], "tool_calls": calls}, *results]


class ReAct(_Common):
    """Thought, action and observation as text; after two turns in a row that cannot be read, constrained calls."""

    def request(self, rounds: Sequence[Round], *, final: bool, squeeze: int) -> Generation:
        """The instructions, and the task with all rounds so far as one text to be gone on with."""
        plan = self._plan
        system = self._say("react", tools=describe([tool.spec() for tool in self._tools]))
        lines = [self._say("task", task=plan.task)]
        left_out, kept = self._kept(rounds, squeeze)
        if left_out:
            lines.append(self._say("left_out", count=str(left_out)))
        for each, longest in kept:
            lines += self._told(each, longest)
        broken = _was_unreadable(rounds)
        if final:
            lines.append(self._say("finish"))
        elif not broken:
            lines.append(self._say("act"))
        messages: list[Message] = [
            {"role": "system", "content": "\n\n".join(filter(None, (plan.instructions, system)))},
            *plan.history,
            {"role": "user", "content": "\n".join(lines)},
        ]
        if broken and not final:
            return self._generation(messages, toolset=Toolset(tools=self._offered(), mode="required", parallel=False))
        return self._generation(messages, stop=STOPS)

    def read(self, answer: Answer, *, final: bool) -> Move:
        """The first round of its text, or the constrained call."""
        choice = answer.choices[0]
        if choice.calls:
            call = choice.calls[0]
            arguments = orjson.loads(call.arguments or "{}")
            move = Move(text=choice.text)
            if call.name == _FINAL_TOOL:
                move.final = str(arguments["answer"])
            else:
                move.calls = (Wanted(call.id, call.name, arguments),)
        else:
            move = read_move(choice.text, self._tools)
            if final and move.final is None:
                move.final, move.calls, move.problem = choice.text.strip(), (), None
        move.tokens = _tokens(answer)
        return move

    def _offered(self) -> tuple[ToolSpec, ...]:
        """The tools, and one more by which the model says that it is done."""
        schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
        done = ToolSpec(name=_FINAL_TOOL, description="Give the final answer to the task.", parameters=schema)
        return (*(tool.spec() for tool in self._tools), done)

    def _told(self, each: Round, longest: int | None) -> list[str]:
        output = each.turn.output or {}
        if output["problem"]:
            return [output["text"].strip(), self._say("problem", reason=output["problem"])]
        lines = [self._say("thought", thought=output["thought"])] if output["thought"] else []
        for step in each.calls:
            arguments = orjson.dumps(step.input["arguments"]).decode()
            lines.append(self._say("action", tool=step.input["tool"], arguments=arguments))
            result = self._say("data", result=_fenced(told(step, self._language, longest)))
            lines.append(self._say("observation", result=result))
        return lines


def _was_unreadable(rounds: Sequence[Round]) -> bool:
    """Whether two turns in a row were problems at any time: such a model is held to calls from then on."""
    problems = [bool((each.turn.output or {})["problem"]) for each in rounds]
    return any(one and other for one, other in itertools.pairwise(problems))


def _fenced(text: str) -> str:
    """A result that cannot end the block in which it is shown."""
    return text.replace("</data>", "<\u200b/data>")


def _tokens(answer: Answer) -> int:
    return answer.usage.prompt_tokens + answer.usage.completion_tokens
