"""Reading what a model wrote in the form of ReAct (Yao et al., arXiv:2210.03629), tolerantly, in English and Chinese.

Understood all the same: full-width punctuation, fences, bold or numbered labels, several rounds (only the first counts,
and an observation that the model invented ends it), arguments behind the action's name, missing brackets and quotes.
What stays unclear is a problem whose reason the model is told.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from pagoda.core.types import new_id
from pagoda.logic.agents.plan import Move, Wanted
from pagoda.logic.tools.tool import Tool

STOPS = ("\nObservation", "\n观察")
"""Before these the model is stopped: what a tool gave is not for it to write."""

_LABELS = {
    "thought": ("thought", "思考", "想法"),
    "input": ("action input", "action_input", "arguments", "行动输入", "动作输入", "参数"),
    "action": ("action", "行动", "动作"),
    "observation": ("observation", "观察", "观察结果"),
    "final": ("final answer", "final_answer", "最终答案", "最终回答", "答案"),
}
_NAMES = "|".join(sorted((re.escape(w) for words in _LABELS.values() for w in words), key=len, reverse=True))
_LABEL = re.compile(rf"^[\s>*#`\d.\-]*({_NAMES})\s*\d*\s*\**\s*[:：]\**", re.IGNORECASE | re.MULTILINE)
_FENCE = re.compile(r"^```[\w-]*\s*|\s*```\s*$")
_CALLED = re.compile(r"^[`\"'*\[\s]*([\w.:/-]+)[`\"'*\]]*\s*[(（]?(.*)$", re.DOTALL)
_PUNCTUATION = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "：": ":", "，": ",", "｛": "{", "｝": "}"})
_CLOSING = {"{": "}", "[": "]"}


def read_move(text: str, tools: Sequence[Tool]) -> Move:
    """The first round of a text: a call, a final answer, or a problem."""
    parts = _parts(text)
    thought = parts.get("thought", parts.get("", "")).strip()
    move = Move(text=text, thought=thought)
    if "action" in parts and parts["action"].strip().strip("`*."):
        called = _CALLED.match(parts["action"].strip())
        name, rest = (called[1], called[2]) if called else (parts["action"].strip(), "")
        tool = next((each for each in tools if each.name.lower() == name.lower()), None)
        if tool is None:
            move.problem = f"There is no tool {name[:60]!r}; choose one of: {', '.join(each.name for each in tools)}."
            return move
        arguments = read_arguments(parts.get("input") or rest, tool.parameters)
        if arguments is None:
            move.problem = f"The arguments of {tool.name} must be a JSON object, such as {_example(tool.parameters)}."
            return move
        move.calls = (Wanted(new_id("call"), tool.name, arguments),)
    elif parts.get("final", "").strip():
        move.final = _FENCE.sub("", parts["final"].strip()).strip()
    elif not text.strip():
        move.problem = "Nothing was written."
    else:
        move.problem = "There is neither an action nor a final answer."
    return move


def read_arguments(text: str, parameters: Mapping[str, Any]) -> Any:
    """The JSON object in a text, repaired where that is plain; a bare value is the only argument. ``None``: unclear."""
    text = _FENCE.sub("", text.strip()).strip()
    properties = parameters.get("properties") or {}
    if not text.strip("()（）` "):
        return {} if not parameters.get("required") else None
    start = next((at for at, letter in enumerate(text) if letter in "{｛"), None)
    if start is None:
        if len(properties) != 1:
            return None
        ((name, part),) = properties.items()
        return {name: _bare(text, part)}
    for candidate in (text[start:], unicodedata.normalize("NFKC", text[start:]).translate(_PUNCTUATION)):
        for each in (candidate, _closed(candidate), _closed(candidate.replace("'", '"'))):
            found = _first_object(each)
            if found is not None:
                return found
    return None


def _parts(text: str) -> dict[str, str]:
    """The text behind each label of the first round, and before all of them under the empty name."""
    matches = list(_LABEL.finditer(text))
    parts = {"": text[: matches[0].start()] if matches else text}
    for match, end in zip(matches, [*(each.start() for each in matches[1:]), len(text)][: len(matches)], strict=True):
        word = match[1].lower()
        kind = next(kind for kind, words in _LABELS.items() if word in words)
        if kind == "observation" or (kind in parts and kind != "final") or (kind == "thought" and "action" in parts):
            break
        parts[kind] = text[match.end() : end]
    return parts


def _first_object(text: str) -> dict[str, Any] | None:
    """The shortest beginning of a text that is a JSON object."""
    for end, letter in enumerate(text, 1):
        if letter == "}":
            try:
                found = orjson.loads(text[:end])
            except orjson.JSONDecodeError:
                continue
            return found if isinstance(found, dict) else None
    return None


def _closed(text: str) -> str:
    """The text with the quotes and brackets that it leaves open."""
    opened: list[str] = []
    quoted = escaped = False
    for letter in text:
        if quoted:
            quoted, escaped = (letter != '"' or escaped), (letter == "\\" and not escaped)
        elif letter == '"':
            quoted = True
        elif letter in _CLOSING:
            opened.append(_CLOSING[letter])
        elif opened and letter == opened[-1]:
            opened.pop()
    return text.rstrip().rstrip("`)") + ('"' if quoted else "") + "".join(reversed(opened))


def _bare(text: str, part: Mapping[str, Any]) -> Any:
    """A value without an object around it."""
    text = text.strip().strip("`()（）").strip()
    if part.get("type") in ("integer", "number", "boolean"):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text  # the check of the arguments says what is wrong with it
    return text.strip("\"'“”")


def _example(parameters: Mapping[str, Any]) -> str:
    names = list(parameters.get("required") or parameters.get("properties") or ())
    return orjson.dumps({name: "..." for name in names}).decode()
