"""A tool from a typed Python function: the schema from its signature, the words from its docstring.

A docstring's first paragraph says what the tool does. What an argument means is read from sections ``Args:`` or
``参数：`` (lines ``name: meaning``) and from ``:param name: meaning``. A parameter annotated ``Occasion`` is given the
occasion of the call and is no argument. A function that is no coroutine runs in a thread, which cancelling leaves.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model

from pagoda.core.errors import InvalidRequest, ToolError
from pagoda.core.types import Json
from pagoda.logic.tools.tool import Occasion, Tool

_SECTION = re.compile(r"^(Args|Arguments|Parameters|参数)\s*[:：]\s*$")
_OTHER_SECTION = re.compile(r"^(Returns|Raises|Yields|Examples?|Notes?|返回值?|异常|示例)\s*[:：]")
_ENTRY = re.compile(r"^\s+\*{0,2}(\w+)\s*(?:[(（][^)）]*[)）])?\s*[:：]\s*(.+)$")
_PARAM = re.compile(r"^\s*:param\s+(?:[\w\[\], |]+\s)?(\w+)\s*:\s*(.+)$")
_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def tool_from(function: Callable[..., Any], *, name: str = "", **flags: Any) -> Tool:
    """The tool of a function; ``flags`` are fields of ``Tool``.

    Raises ``InvalidRequest`` for a parameter without type, or one whose type has no JSON Schema.
    """
    name = name or function.__name__
    what, meanings = read_docstring(inspect.getdoc(function) or "")
    hints = typing.get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    occasion_name = ""
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name)
        if hint is Occasion:
            occasion_name = parameter.name
            continue
        if hint is None or parameter.kind not in _KINDS:
            raise InvalidRequest(f"The parameter {parameter.name} of {name} needs a type and a name to be given by.")
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[parameter.name] = (hint, default)
    try:
        model = create_model(name, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=False), **fields)
        schema = _described(model.model_json_schema(), meanings)
    except Exception as error:  # pydantic's errors for types share no root
        raise InvalidRequest(f"The types of {name} have no JSON Schema: {error}.") from error
    result = hints.get("return")
    adapter = TypeAdapter(Any if result is None else result)

    async def perform(arguments: Mapping[str, Any], occasion: Occasion) -> Json:
        try:
            given = model.model_validate(arguments)
        except ValidationError as error:
            raise ToolError(
                f"the arguments of {name} are wrong: {error.errors(include_url=False)[0]['msg']}"
            ) from error
        values = {field: getattr(given, field) for field in fields}
        if occasion_name:
            values[occasion_name] = occasion
        if inspect.iscoroutinefunction(function):
            found = await function(**values)
        else:
            found = await asyncio.to_thread(function, **values)
        return adapter.dump_python(found, mode="json")

    return Tool(name=name, description=what, parameters=schema, perform=perform, **flags)


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """What a function does (the first paragraph), and what each argument means."""
    what = " ".join(text.split("\n\n", 1)[0].split())
    meanings: dict[str, str] = {}
    inside, last = False, ""
    for line in text.splitlines():
        if found := _PARAM.match(line):
            meanings[found[1]] = found[2].strip()
        elif _SECTION.match(line):
            inside, last = True, ""
        elif inside and (_OTHER_SECTION.match(line) or (line and not line[0].isspace())):
            inside = False
        elif inside and (found := _ENTRY.match(line)):
            last = found[1]
            meanings[last] = found[2].strip()
        elif inside and last and line.strip():
            meanings[last] += " " + line.strip()
    return what, meanings


def _described(schema: dict[str, Any], meanings: Mapping[str, str]) -> dict[str, Any]:
    """The schema with the meanings of its arguments and without pydantic's titles."""
    for name, part in schema.get("properties", {}).items():
        if name in meanings:
            part.setdefault("description", meanings[name])
    _untitle(schema)
    return schema


def _untitle(schema: Any) -> None:
    if isinstance(schema, dict):
        if isinstance(schema.get("title"), str):
            del schema["title"]
        for key, part in schema.items():
            for each in part.values() if key in ("properties", "$defs") else (part,):
                _untitle(each)
    elif isinstance(schema, list):
        for each in schema:
            _untitle(each)
