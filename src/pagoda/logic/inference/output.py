"""Checking an answer against the form that was demanded, whatever the engine promised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from jsonschema import Draft202012Validator, SchemaError, ValidationError
from referencing.exceptions import Unresolvable

from pagoda.core.errors import BadOutput, InvalidRequest
from pagoda.core.types import OutputFormat


def check_schema(schema: Mapping[str, Any], place: str = "response_format") -> None:
    """Refuse what is not a JSON Schema (draft 2020-12); ``place`` is where it was given. Raises ``InvalidRequest``."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = "/".join(map(str, error.absolute_path)) or "the top"
        raise InvalidRequest(
            f"The schema in {place} is not valid JSON Schema, at {where}: {error.message}",
            param=place,
            code="invalid_json_schema",
        ) from error


def check_output(text: str, demanded: OutputFormat) -> None:
    """Raise ``BadOutput`` when a complete answer is not the JSON that was demanded."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadOutput(f"The model's answer is not JSON: {error}.") from error
    if demanded.schema is None:
        if not isinstance(value, dict):
            raise BadOutput("The model's answer is JSON, but not an object.")
        return
    try:
        Draft202012Validator(demanded.schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)
    except ValidationError as error:
        where = "/".join(map(str, error.absolute_path)) or "the top"
        raise BadOutput(f"The model's answer breaks its schema at {where}: {error.message}.") from error
    except Unresolvable as error:
        raise InvalidRequest(
            f"The schema in response_format refers to something that is not in it: {error}.", param="response_format"
        ) from error
