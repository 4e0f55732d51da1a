"""Narrowed schemas: what is valid under them is valid under what was given, ends, and is never promised too much."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagoda.core.errors import InvalidRequest
from pagoda.logic.inference.calling.narrowing import LADDER, Bounds, longest, narrow
from pagoda.logic.inference.output import violation

TIGHT = Bounds(12, 3, 1, open_objects=False)


def written(narrowed: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What a grammar of a narrowed schema can write."""
    if "const" in narrowed:
        return st.just(narrowed["const"])
    if "enum" in narrowed:
        return st.sampled_from(narrowed["enum"])
    if "anyOf" in narrowed:
        return st.one_of(*map(written, narrowed["anyOf"]))
    match narrowed["type"]:
        case "object":
            required = narrowed.get("required", [])
            parts = {name: written(part) for name, part in narrowed["properties"].items()}
            return st.fixed_dictionaries(
                {name: parts[name] for name in parts if name in required},
                optional={name: parts[name] for name in parts if name not in required},
            )
        case "array":
            return st.lists(
                written(narrowed["items"]), min_size=narrowed.get("minItems", 0), max_size=narrowed["maxItems"]
            )
        case "string":
            letters = st.characters(min_codepoint=97, max_codepoint=122)
            return st.text(letters, min_size=narrowed.get("minLength", 0), max_size=narrowed["maxLength"])
        case "integer":
            return st.integers(narrowed.get("minimum", -(10**12)), narrowed.get("maximum", 10**12))
        case "number":
            return st.floats(allow_nan=False, allow_infinity=False, width=32)
        case "boolean":
            return st.booleans()
    return st.none()


SMALL = st.integers(0, 9)
LEAVES = st.one_of(
    st.sampled_from(({"type": "boolean"}, {"type": "number"}, {"type": "null"}, {}, {"const": 7})),
    st.builds(lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more}, SMALL, SMALL),
    st.builds(lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more}, SMALL, SMALL),
    st.builds(lambda values: {"enum": values}, st.lists(st.integers() | st.text("abc"), min_size=1, max_size=4)),
)


def larger(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(("a", "b", "c"))
    objects = st.builds(
        lambda properties, required, more: {
            "type": "object",
            "properties": properties,
            "required": [name for name in required if name in properties],
            **({} if more is None else {"additionalProperties": more}),
        },
        st.dictionaries(names, parts, max_size=3),
        st.lists(names, unique=True),
        st.sampled_from((None, True, False)),
    )
    arrays = st.builds(
        lambda part, least, more: {"type": "array", "items": part, "minItems": least, "maxItems": least + more},
        parts,
        st.integers(0, 2),
        st.integers(0, 9),
    )
    return st.one_of(objects, arrays, st.builds(lambda some: {"anyOf": some}, st.lists(parts, min_size=1, max_size=3)))


@settings(max_examples=150, deadline=None)
@given(st.recursive(LEAVES, larger, max_leaves=6), st.data())
def test_what_is_written_under_a_narrowed_schema_is_valid_and_no_longer_than_told(schema: Any, data: Any) -> None:
    narrowed = narrow(schema, TIGHT)
    value = data.draw(written(narrowed.schema))
    assert violation(value, schema) is None
    assert len(json.dumps(value, ensure_ascii=False, separators=(",", ":"))) <= longest(narrowed.schema)


def test_recursion_is_written_out_to_a_stated_depth_and_its_optional_end_left_out() -> None:
    tree = {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/node"}},
                "required": ["name"],
            }
        },
    }
    text = orjson.dumps(narrow(tree, Bounds(rounds=2)).schema)
    assert text.count(b'"next"') == 2
    assert b"$ref" not in text


ENDLESS = {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1}}}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (ENDLESS, "no end"),
        ({"$ref": "http://elsewhere/schema"}, "not in it"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, "minLength above"),
        ({"type": "array", "minItems": 5, "maxItems": 2}, "minItems above"),
        ({"type": "integer", "enum": ["a"]}, "without a valid value"),
        ({"type": "integer", "minimum": 5, "maximum": 2}, "minimum above"),
        ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "allows nothing"),
    ],
)
def test_what_nothing_can_meet_is_refused_with_the_reason(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        narrow(schema, LADDER[0])


def test_an_impossible_part_that_may_be_left_out_is_left_out() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": []}, "b": {"type": "null"}}}
    assert set(narrow(schema, TIGHT).schema["properties"]) == {"b"}


@pytest.mark.parametrize(
    ("schema", "loose"),
    [
        ({"type": "number", "multipleOf": 3}, {"multipleOf"}),
        ({"type": "number", "minimum": 3}, {"minimum"}),
        ({"type": "integer", "minimum": 3}, set()),
        ({"type": "string", "format": "email"}, {"format"}),
        ({"type": "string", "format": "date"}, set()),
        ({"type": "string", "pattern": "^[a-z]+$"}, {"pattern"}),
        ({"type": "string", "pattern": "^[a-z]{2}$"}, set()),
        ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, {"uniqueItems"}),
        ({"type": "object", "properties": {"not": {"type": "null"}}}, set()),
        ({"oneOf": [{"type": "null"}, {"type": "string"}]}, {"oneOf"}),
    ],
)
def test_keywords_that_are_not_enforced_are_named(schema: dict[str, Any], loose: set[str]) -> None:
    assert narrow(schema, TIGHT).loose == loose


def test_parts_of_all_of_hold_together() -> None:
    one = {"properties": {"a": {"type": "null"}}, "required": ["a"]}
    both = {"type": "object", "allOf": [one, {"properties": {"b": {"type": "null"}}, "required": ["b"]}]}
    assert narrow(both, TIGHT).schema["required"] == ["a", "b"]


def test_the_ladder_gets_ever_tighter() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}, "b": {}}}
    lengths = [longest(narrow(schema, bounds).schema) for bounds in LADDER]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < 80
