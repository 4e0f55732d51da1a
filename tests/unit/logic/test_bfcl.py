"""BFCL: the checker accepts every listed answer and refuses each that differs in one field; types become JSON's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import ToolSpec
from pagoda.logic.evaluation.bfcl import CALLABLE, IRRELEVANT, Item, json_schema, names_right, read_items, wrong
from pagoda.logic.inference.output import check_schema
from tests.public_data import public_data

Calls = list[tuple[str, dict[str, Any]]]


def plain(accepted: Any) -> Any:
    """A value as a model would write it, from one that lists what the parts of its objects may be."""
    if isinstance(accepted, Mapping):
        parts = {name: part[0] if isinstance(part, list) else part for name, part in accepted.items()}
        return {name: plain(part) for name, part in parts.items() if part != ""}
    return [plain(each) for each in accepted] if isinstance(accepted, list) else accepted


def first_answer(item: Item) -> Calls:
    calls = []
    for expected in item.expected:
        ((name, accepted),) = expected.items()
        calls.append((name, {key: plain(values[0]) for key, values in accepted.items() if values[0] != ""}))
    return calls


def answers(item: Item) -> Iterator[Calls]:
    """The first answer, and it with each other value that is listed for one argument."""
    base = first_answer(item)
    yield base
    for place, expected in enumerate(item.expected):
        ((name, accepted),) = expected.items()
        for key, values in accepted.items():
            for value in values:
                arguments = {**base[place][1], key: plain(value)}
                if value == "":
                    del arguments[key]
                yield [*base[:place], (name, arguments), *base[place + 1 :]]


def spoilt(value: Any) -> Any:
    """A value of the same type that nobody lists."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 98765
        case str():
            return value + " qqzz"
        case list():
            return [*value, "qqzz"]
        case dict():
            return {**value, "qqzz": 1}
    return "qqzz"


def mutations(item: Item) -> Iterator[Calls]:
    """The first answer with one field that is not accepted."""
    base = first_answer(item)
    for place, expected in enumerate(item.expected):
        ((name, accepted),) = expected.items()
        before, after = base[:place], base[place + 1 :]
        arguments = base[place][1]
        yield [*before, *after]
        yield [*before, (name + "x", arguments), *after]
        yield [*before, (name, {**arguments, "qqzz": 1}), *after]
        for key, value in arguments.items():
            other = spoilt(value)
            if other not in accepted[key]:
                yield [*before, (name, {**arguments, key: other}), *after]
            if "" not in accepted[key]:
                yield [*before, (name, {k: v for k, v in arguments.items() if k != key}), *after]


@pytest.mark.parametrize("category", CALLABLE)
def test_every_listed_answer_is_right_and_every_mutation_wrong(category: str) -> None:
    items = read_items(public_data("bfcl"), category)
    assert len(items) in (200, 400)
    right = [wrong(calls, item) for item in items for calls in answers(item)]
    assert right.count(None) == len(right) > len(items)
    accepted = [(item.id, calls) for item in items for calls in mutations(item) if wrong(calls, item) is None]
    assert accepted == []


def test_all_parameters_become_json_schema() -> None:
    tools = [
        tool
        for name in (*CALLABLE, IRRELEVANT)
        for item in read_items(public_data("bfcl"), name)
        for tool in item.tools
    ]
    assert len(tools) == 1917
    for tool in tools:
        check_schema(tool.parameters)
        assert tool.parameters["type"] == "object"


def item(*expected: dict[str, Any]) -> Item:
    return Item("x", "parallel", (), (ToolSpec(name="book"),), expected)


@pytest.mark.parametrize(
    ("calls", "right"),
    [
        ([("book", {"city": "new york", "nights": 2})], True),
        ([("book", {"city": "New-York", "nights": 2.0, "room": "single"})], True),
        ([("book", {"city": "Rome", "nights": 2})], False),
        ([("book", {"city": "new york", "nights": True})], False),
        ([("book", {"city": "new york"})], False),
        ([("book", {"city": "new york", "nights": 2, "more": 1})], False),
        ([("look", {"city": "new york", "nights": 2})], False),
        ([], False),
    ],
)
def test_values_are_compared_as_the_leaderboard_does(calls: Calls, right: bool) -> None:
    wanted = item({"book": {"city": ["New York", "NYC"], "nights": [2], "room": ["", "single"]}})
    assert (wrong(calls, wanted) is None) is right


def test_calls_may_come_in_any_order_but_each_once() -> None:
    wanted = item({"book": {"city": ["Rome"]}}, {"book": {"city": ["Oslo"]}})
    assert wrong([("book", {"city": "Oslo"}), ("book", {"city": "Rome"})], wanted) is None
    twice: Calls = [("book", {"city": "Oslo"}), ("book", {"city": "Oslo"})]
    assert wrong(twice, wanted) is not None
    assert names_right(twice, wanted)


def test_parts_of_objects_list_what_they_may_be() -> None:
    wanted = item({"book": {"guest": [{"name": ["Ada", "A."], "age": ["", 7]}]}})
    assert wrong([("book", {"guest": {"name": "a"}})], wanted) is None
    assert wrong([("book", {"guest": {"name": "ada", "age": 8}})], wanted) is not None


def test_types_of_python_become_those_of_json_schema() -> None:
    given = {
        "type": "dict",
        "properties": {"type": {"type": "float", "optional": True}, "b": {"type": "tuple", "items": {"type": "any"}}},
        "required": ["type"],
    }
    assert json_schema(given) == {
        "type": "object",
        "properties": {"type": {"type": "number"}, "b": {"type": "array", "items": {}}},
        "required": ["type"],
    }


def test_what_is_not_there_or_no_file_of_bfcl_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_items(tmp_path, IRRELEVANT)
    with pytest.raises(InvalidRequest, match="no category"):
        read_items(tmp_path, "live")
    (tmp_path / "irrelevance.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(InvalidRequest, match="no file of BFCL"):
        read_items(tmp_path, IRRELEVANT)
