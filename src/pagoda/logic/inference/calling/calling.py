"""Tool calls from any model that can write JSON of a demanded form.

``auto`` begins with a decision, which is constrained to two words; text is then written as without tools. A call is
constrained to the union of the tools' narrowed schemas and checked against the whole ones. A call that breaks them, or
found no end, is asked for once more with the reason, within bounds that surely end in the tokens that there are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import orjson

from pagoda.core.errors import BadOutput, InvalidRequest
from pagoda.core.types import (
    Call,
    CallDelta,
    Event,
    Finish,
    Generation,
    OutputFormat,
    Started,
    Toolset,
    ToolSpec,
    Usage,
    new_id,
)
from pagoda.logic.inference.answer import Answer, gather
from pagoda.logic.inference.calling.narrowing import LADDER, Bounds, longest, narrow
from pagoda.logic.inference.calling.wording import describe, in_turns, introduced, language_of, say
from pagoda.logic.inference.output import check_schema, violation

Ask: TypeAlias = Callable[[Generation, Call], AsyncIterator[Event]]

_CALL_TOKENS = 1024  # for calls of requests that give no length
_MOST_CALLS = 8
_DECISION = {"type": "string", "enum": ["call", "answer"]}
_DECISION_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Called:
    """A tool call: valid arguments of a declared tool."""

    name: str
    arguments: Mapping[str, Any]


def check_toolset(toolset: Toolset) -> None:
    """Raise ``InvalidRequest`` for tools that contradict each other, or whose schemas are none."""
    names = [tool.name for tool in toolset.tools]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise InvalidRequest(f"Two tools are called {double}; every tool needs a name of its own.", param="tools")
    if toolset.only is not None and toolset.only not in names:
        raise InvalidRequest(f"tool_choice names {toolset.only!r}, which is none of the tools.", param="tool_choice")
    for tool in toolset.tools:
        check_schema(tool.parameters, f"the parameters of the tool {tool.name}", "tools")


def check_calls(calls: Sequence[tuple[str, Any]], toolset: Toolset) -> list[Called]:
    """The calls, if each is valid for a declared tool. Raises ``BadOutput`` with the reason."""
    tools = {tool.name: tool for tool in allowed_tools(toolset)}
    for name, arguments in calls:
        if name not in tools:
            raise BadOutput(f"The model called {name!r}, which is none of the tools: {', '.join(tools)}.")
        if (why := violation(arguments, tools[name].parameters)) is not None:
            raise BadOutput(f"The model's arguments for {name} break its schema {why}.")
    if toolset.mode == "required" and not calls:
        raise BadOutput("The model called no tool, although one was required.")
    return [Called(name, arguments) for name, arguments in calls]


def read_calls(text: str) -> list[tuple[str, Any]]:
    """The calls in a JSON text, one or an array of them; equal ones are one. Raises ``BadOutput``."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadOutput(f"The model's call is not JSON: {error}.") from error
    calls: list[tuple[str, Any]] = []
    for row in found if isinstance(found, list) else [found]:
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            raise BadOutput("The model's call names no tool.")
        if (pair := (row["name"], row.get("arguments"))) not in calls:
            calls.append(pair)
    return calls


def allowed_tools(toolset: Toolset) -> tuple[ToolSpec, ...]:
    """The tools that may be called."""
    return tuple(tool for tool in toolset.tools if toolset.only in (None, tool.name))


def call_form(toolset: Toolset, bounds: Bounds, *, several: bool) -> tuple[dict[str, Any], set[str]]:
    """The schema of a call, or of an array of several, and the keywords that it leaves to the check."""
    forms, loose = [], set()
    for tool in allowed_tools(toolset):
        narrowed = narrow(tool.parameters, bounds, f"The schema of the tool {tool.name}")
        loose |= narrowed.loose
        forms.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool.name}, "arguments": narrowed.schema},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    form: dict[str, Any] = forms[0] if len(forms) == 1 else {"anyOf": forms}
    if several:
        form = {"type": "array", "items": form, "minItems": 1, "maxItems": _MOST_CALLS}
    return form, loose


def answer_with_tools(ask: Ask, write: Ask, request: Generation, call: Call) -> AsyncIterator[Event]:
    """The answer to a chat with tools, or with calls in its past, of a model that knows neither.

    ``ask`` gives the events of a generation without tools, ``write`` those of one whose form is checked here. Raises
    ``InvalidRequest`` for what goes with no call, ``BadOutput`` for a call that is not valid at the second try either.
    """
    messages = request.messages or ()
    language = language_of(messages)
    plain = replace(request, toolset=None, messages=in_turns(messages, language))
    toolset = request.toolset
    if toolset is None or not toolset.tools or toolset.mode == "none":
        return ask(plain, call)
    check_toolset(toolset)
    for given, param in ((request.n > 1, "n"), (request.continue_final, "continue_final_message")):
        if given:
            raise InvalidRequest(
                f"{request.model} has no form of its own for tools, and with them takes no {param}.", param=param
            )
    return _Calling(ask, write, plain, toolset, call).events()


class _Calling:
    """One answer on its way: at most a decision and two tries."""

    def __init__(self, ask: Ask, write: Ask, plain: Generation, toolset: Toolset, call: Call) -> None:
        self._ask = ask
        self._write = write
        self._plain = plain
        self._toolset = toolset
        self._call = call
        self._language = language_of(plain.messages or ())
        self._used: list[Usage] = []

    async def events(self) -> AsyncIterator[Event]:
        """The answer's events."""
        if self._toolset.mode == "auto" and not await self._wants_call():
            async with aclosing(self._ask(self._plain, self._part())) as events:  # type: ignore[type-var]
                async for event in events:
                    yield self._summed(event) if isinstance(event, Usage) else event
            return
        answer, calls = await self._calls()
        _, loose = call_form(self._toolset, LADDER[0], several=False)
        warnings = answer.warnings
        if loose:
            said = f"Checked after the call, not enforced while it is written: the schema's {', '.join(sorted(loose))}."
            warnings = (*warnings, said)
        yield Started(answer.model, answer.engine, warnings, answer.cache)
        for place, called in enumerate(calls):
            yield CallDelta(0, place, "", new_id("call"), called.name)
            yield CallDelta(0, place, orjson.dumps(called.arguments).decode())
        yield Finish(0, "tool_calls")
        yield self._summed(answer.usage)

    async def _wants_call(self) -> bool:
        """The model's decision."""
        answer = await self._asked("choose", _DECISION, _DECISION_TOKENS)
        self._used.append(answer.usage)
        word = answer.text.strip().strip('"')
        if word not in _DECISION["enum"]:
            raise BadOutput(f"The model decided neither for a call nor for an answer: {word[:100]!r}.")
        return word == "call"

    async def _calls(self) -> tuple[Answer, list[Called]]:
        several = self._toolset.parallel and self._toolset.only is None
        budget = self._plain.max_tokens or _CALL_TOKENS
        form, _ = call_form(self._toolset, LADDER[0], several=several)
        answer = await self._asked("calls" if several else "call", form, budget)
        try:
            return answer, self._read(answer)
        except BadOutput as error:
            self._used.append(answer.usage)
            broken: tuple[dict[str, Any], ...] = ()
            if answer.choices[0].finish == "stop":  # what has no end is not worth repeating
                reason = say(self._language, "again", reason=error.message)
                broken = ({"role": "assistant", "content": answer.text}, {"role": "user", "content": reason})
        answer = await self._asked("call", self._tight_form(budget), budget, *broken)
        return answer, self._read(answer)

    def _tight_form(self, budget: int) -> dict[str, Any]:
        """The roomiest form of a single call that surely ends within a number of tokens, none shorter than a letter."""
        forms = [call_form(self._toolset, bounds, several=False)[0] for bounds in LADDER[1:]]
        return next((form for form in forms if longest(form) <= budget), forms[-1])

    async def _asked(self, what: str, form: dict[str, Any], tokens: int, *more: Mapping[str, Any]) -> Answer:
        instruction = say(self._language, what, tools=describe(allowed_tools(self._toolset)))
        sampling = replace(self._plain.sampling, temperature=0.0) if what == "choose" else self._plain.sampling
        wanted = replace(
            self._plain,
            sampling=sampling,
            messages=introduced((*(self._plain.messages or ()), *more), instruction),
            output=OutputFormat(kind="json_schema", name="call", schema=form),
            max_tokens=tokens,
            stop=(),
            top_logprobs=None,
            reasoning="hidden",
        )
        return await gather(self._write(wanted, self._part()), wanted)

    def _read(self, answer: Answer) -> list[Called]:
        """The valid calls of an answer. Raises ``BadOutput``."""
        if answer.choices[0].finish == "length":
            raise BadOutput("The tool call did not fit into max_tokens; allow more, or use tools with shorter schemas.")
        return check_calls(read_calls(answer.text), self._toolset)

    def _part(self) -> Call:
        """The call of a further generation: all of an answer's are one request."""
        return replace(self._call, parent=self._call.request_id) if self._used else self._call

    def _summed(self, last: Usage) -> Usage:
        """What all generations of this answer used."""
        all_of_them = (*self._used, last)
        return Usage(
            sum(each.prompt_tokens for each in all_of_them),
            sum(each.completion_tokens for each in all_of_them),
            sum(each.cached_tokens for each in all_of_them),
            sum(each.reasoning_tokens for each in all_of_them),
        )


async def checked_calls(events: AsyncIterator[Event], toolset: Toolset) -> AsyncIterator[Event]:
    """The events of an engine that calls tools itself; ``BadOutput`` ends them where a call is none of a tool."""
    calls: dict[tuple[int, int], list[str]] = {}
    async with aclosing(events) as source:  # type: ignore[type-var]
        async for event in source:
            match event:
                case CallDelta(index, place, arguments, _, name):
                    parts = calls.setdefault((index, place), ["", ""])
                    parts[0] += name
                    parts[1] += arguments
                case Finish(index, "stop" | "tool_calls"):
                    check_calls([_parsed(*parts) for (of, _), parts in calls.items() if of == index], toolset)
            yield event


def _parsed(name: str, arguments: str) -> tuple[str, Any]:
    try:
        return name, orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError as error:
        raise BadOutput(f"The model's arguments for {name} are not JSON: {error}.") from error
