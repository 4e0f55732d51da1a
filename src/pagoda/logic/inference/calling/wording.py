"""How a model without tool messages is told of tools, calls and results: words in data, chats in plain turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any, Literal, TypeAlias

import orjson
import yaml

from pagoda.core.types import Message, ToolSpec

Language: TypeAlias = Literal["en", "zh"]


class Wording:
    """The texts of a file of words: by language and name, with a version for all of them."""

    def __init__(self, package: str, name: str = "wording.yaml") -> None:
        text = files(package).joinpath(name).read_text(encoding="utf-8")
        self._texts: Mapping[str, Any] = yaml.safe_load(text)
        self.version = int(self._texts["version"])

    def say(self, language: Language, what: str, **values: str) -> str:
        """A text with its values filled in."""
        return Template(self._texts[language][what]).substitute(values)


@cache
def _words() -> Wording:
    return Wording("pagoda.logic.inference.calling")


def version() -> int:
    """The version of the words, for records of what was measured with them."""
    return _words().version


def say(language: Language, what: str, **values: str) -> str:
    """A text of the wording with its values filled in."""
    return _words().say(language, what, **values)


def language_of(messages: Sequence[Message]) -> Language:
    """The language of the last message that a user wrote: Chinese where it holds Chinese characters."""
    asked = next((message for message in reversed(messages) if message.get("role") == "user"), {})
    return "zh" if any("\u4e00" <= letter <= "\u9fff" for letter in str(asked.get("content") or "")) else "en"


def describe(tools: Sequence[ToolSpec]) -> str:
    """The tools as models are told of them, one JSON object a line."""
    return "\n".join(
        orjson.dumps(
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters}, default=dict
        ).decode()
        for tool in tools
    )


def introduced(messages: Sequence[Message], instruction: str) -> tuple[Message, ...]:
    """The conversation with an instruction at the end of its system message, which is made where there is none."""
    if messages and messages[0].get("role") == "system":
        first = {**messages[0], "content": f"{messages[0].get('content') or ''}\n\n{instruction}"}
        return (first, *messages[1:])
    return ({"role": "system", "content": instruction}, *messages)


def in_turns(messages: Sequence[Message], language: Language) -> tuple[Message, ...]:
    """The conversation with calls as the assistant's text and results as the user's, neighbours of one role as one."""
    turns: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for message in messages:
        turn = dict(message)
        if calls := turn.pop("tool_calls", None):
            names |= {call["id"]: call["function"]["name"] for call in calls}
            turn["content"] = "\n".join(filter(None, (turn.get("content"), *map(_written, calls))))
        if turn["role"] == "tool":
            name = names.get(turn.get("tool_call_id", ""), "the tool")
            result = say(language, "result", name=name, result=turn.get("content") or "")
            turn = {"role": "user", "content": result}
        joins = bool(turns) and turns[-1]["role"] == turn["role"] == "user"
        if joins:
            turns[-1]["content"] = f"{turns[-1]['content']}\n\n{turn['content']}"
        else:
            turns.append(turn)
    return tuple(turns)


def tells_of_calls(messages: Sequence[Message]) -> bool:
    """Whether a conversation holds calls or results."""
    return any(message.get("role") == "tool" or message.get("tool_calls") for message in messages)


def _written(call: Mapping[str, Any]) -> str:
    """An earlier call in the form in which the next one is wanted."""
    function = call["function"]
    return f'{{"name":{orjson.dumps(function["name"]).decode()},"arguments":{function["arguments"] or "{}"}}}'
