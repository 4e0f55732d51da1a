"""The single-turn Python parts of the Berkeley Function-Calling Leaderboard: items, and whether an answer is right.

An answer is right when its calls are, in any order, those that are expected, each argument with one of its accepted
values (an empty text among them: it may be left out). Texts are compared without case, space and the marks ``,./-_*^``,
as the leaderboard does; other than there, an integer may be written as ``5.0``, which JSON Schema calls the same.
The types of the files are Python's and become JSON Schema's first. Patil et al., "The Berkeley Function Calling
Leaderboard", ICML 2025. Not here: the multi-turn and live parts, and asking models (``pagoda.application.evaluating``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import Message, ToolSpec

CALLABLE = ("simple_python", "multiple", "parallel", "parallel_multiple")
"""The categories whose items want calls."""
IRRELEVANT = "irrelevance"
"""The category whose items want none."""

_TYPES = {"dict": "object", "float": "number", "tuple": "array"}
_KEPT_AS_VALUES = frozenset({"enum", "default", "const", "examples", "description", "required"})
_MARKS = re.compile(r"[ ,./\-_*^]")


@dataclass(frozen=True, slots=True)
class Item:
    """One item: what is asked, with which tools, and the calls that are accepted (none for ``irrelevance``)."""

    id: str
    category: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    expected: tuple[Mapping[str, Mapping[str, Sequence[Any]]], ...]
    """Each call as its name with the accepted values of every argument."""

    @property
    def several(self) -> bool:
        """Whether its category may want several calls."""
        return self.category.startswith("parallel")


def read_items(folder: Path, category: str) -> list[Item]:
    """The items of a category from ``<category>.jsonl`` and ``<category>.answers.jsonl``.

    Raises ``InvalidRequest`` where a file is missing or is none of BFCL's.
    """
    if category not in (*CALLABLE, IRRELEVANT):
        raise InvalidRequest(f"There is no category {category!r}; choose among {', '.join((*CALLABLE, IRRELEVANT))}.")
    answers = {}
    if category != IRRELEVANT:
        answers = {row["id"]: row["ground_truth"] for row in _rows(folder / f"{category}.answers.jsonl")}
    try:
        return [
            Item(
                row["id"],
                category,
                tuple(row["question"][0]),
                tuple(_tool(function) for function in row["function"]),
                tuple(answers.get(row["id"], ())),
            )
            for row in _rows(folder / f"{category}.jsonl")
        ]
    except (KeyError, TypeError, IndexError) as error:
        raise InvalidRequest(f"{folder / category}.jsonl is no file of BFCL's: {error!r} is missing.") from error


def json_schema(given: Any) -> Any:
    """BFCL's description of parameters as JSON Schema: Python's types become JSON's, ``any`` becomes no type."""
    if isinstance(given, list):
        return [json_schema(each) for each in given]
    if not isinstance(given, Mapping):
        return given
    schema: dict[str, Any] = {}
    for key, value in given.items():
        if key == "type" and isinstance(value, str):
            if value != "any":
                schema[key] = _TYPES.get(value, value)
        elif key == "properties":
            schema[key] = {name: json_schema(part) for name, part in value.items()}
        elif key != "optional":  # no word of JSON Schema: what is required is listed
            schema[key] = value if key in _KEPT_AS_VALUES else json_schema(value)
    return schema


def wrong(calls: Sequence[tuple[str, Mapping[str, Any]]], item: Item) -> str | None:
    """Why the calls are not those that the item wants; ``None`` when they are right."""
    if len(calls) != len(item.expected):
        return f"{len(calls)} calls instead of {len(item.expected)}"
    left = list(calls)
    for expected in item.expected:
        ((name, accepted),) = expected.items()
        found = next((call for call in left if call[0] == name and _fits(call[1], accepted)), None)
        if found is None:
            return f"no call is {name} with accepted arguments"
        left.remove(found)
    return None


def names_right(calls: Sequence[tuple[str, Mapping[str, Any]]], item: Item) -> bool:
    """Whether the right tools were called, whatever their arguments."""
    return sorted(name for name, _ in calls) == sorted(name for expected in item.expected for name in expected)


def _fits(arguments: Mapping[str, Any], accepted: Mapping[str, Sequence[Any]]) -> bool:
    if any(name not in accepted for name in arguments):
        return False
    return all(
        any(_same(arguments[name], value) for value in values) if name in arguments else "" in values
        for name, values in accepted.items()
    )


def _same(value: Any, accepted: Any) -> bool:
    """Whether a value is the accepted one; the parts of an accepted object list what each may be."""
    if isinstance(accepted, Mapping):
        return isinstance(value, Mapping) and _fits(value, {name: _options(part) for name, part in accepted.items()})
    if isinstance(accepted, list):
        if not isinstance(value, list) or len(value) != len(accepted):
            return False
        return all(_same(one, other) for one, other in zip(value, accepted, strict=True))
    if isinstance(accepted, str):
        return isinstance(value, str) and _plain(value) == _plain(accepted)
    if isinstance(accepted, bool) or isinstance(value, bool):
        return value is accepted
    return bool(value == accepted)


def _options(part: Any) -> Sequence[Any]:
    return part if isinstance(part, list) else [part]


def _plain(text: str) -> str:
    return _MARKS.sub("", text).lower().replace("'", '"')


def _tool(function: Mapping[str, Any]) -> ToolSpec:
    return ToolSpec(
        name=function["name"], description=function["description"], parameters=json_schema(function["parameters"])
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error.strerror}).") from error
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"{path} is not JSON, one object a line: {error}.") from error
