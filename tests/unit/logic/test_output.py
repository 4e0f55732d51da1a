"""The check of an answer against its demanded form."""

from __future__ import annotations

from typing import Any

import pytest

from pagoda.core.errors import BadOutput, InvalidRequest
from pagoda.core.types import OutputFormat
from pagoda.logic.inference.output import check_output, check_schema


def form(schema: dict[str, Any] | None) -> OutputFormat:
    return OutputFormat(kind="json_object" if schema is None else "json_schema", schema=schema)


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("{}", None),
        ("3", {"type": "integer", "multipleOf": 3}),
        ('"2026-11-21"', {"type": "string", "format": "date"}),
        ('{"a": [1]}', {"$defs": {"l": {"type": "array"}}, "properties": {"a": {"$ref": "#/$defs/l"}}}),
    ],
)
def test_what_fits_passes(text: str, schema: dict[str, Any] | None) -> None:
    check_output(text, form(schema))


@pytest.mark.parametrize(
    ("text", "schema", "says"),
    [
        ("not json", None, "not JSON"),
        ("[]", None, "not an object"),
        ("4", {"type": "integer", "multipleOf": 3}, "multiple"),
        ('"soon"', {"type": "string", "format": "date"}, "date"),
        ('{"a": {"b": "x"}}', {"properties": {"a": {"properties": {"b": {"type": "integer"}}}}}, "at a/b"),
        ('{"a": 1', {"type": "object"}, "not JSON"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(text: str, schema: dict[str, Any] | None, says: str) -> None:
    with pytest.raises(BadOutput, match=says):
        check_output(text, form(schema))


@pytest.mark.parametrize("schema", [{"type": "bogus"}, {"properties": []}, {"required": "a"}, {"minimum": "x"}])
def test_what_is_no_schema_is_refused_before_the_model_is_asked(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_schema(schema)
    assert caught.value.param == "response_format"


def test_a_reference_into_nowhere_is_the_users_mistake() -> None:
    with pytest.raises(InvalidRequest, match="refers"):
        check_output("{}", form({"$ref": "#/$defs/missing"}))
