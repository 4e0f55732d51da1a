"""Checking an answer against the form that was demanded, whatever the engine promised."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson
from jsonschema import Draft202012Validator, SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from pagoda.core.errors import BadOutput, InvalidRequest
from pagoda.core.types import OutputFormat

_VALID: set[bytes] = set()
_MOST_KNOWN = 4096


def check_schema(schema: Mapping[str, Any], place: str = "response_format", param: str | None = None) -> None:
    """Refuse what is not a JSON Schema (draft 2020-12). Raises ``InvalidRequest``.

    ``place`` says in words where it was given, ``param`` which parameter that is, if it is not the same. One that was
    found valid is remembered: agents and their like send the same with every turn.
    """
    digest = hashlib.blake2b(orjson.dumps(schema), digest_size=16).digest()
    if digest in _VALID:
        return
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = "/".join(map(str, error.absolute_path)) or "the top"
        raise InvalidRequest(
            f"The schema in {place} is not valid JSON Schema, at {where}: {error.message}",
            param=param or place,
            code="invalid_json_schema",
        ) from error
    if len(_VALID) >= _MOST_KNOWN:
        _VALID.clear()
    _VALID.add(digest)


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
    if (why := violation(value, demanded.schema)) is not None:
        raise BadOutput(f"The model's answer breaks its schema {why}.")


def violation(value: Any, schema: Mapping[str, Any]) -> str | None:
    """Where and why a value is not valid under a schema; ``None`` when it is.

    Raises ``InvalidRequest`` for a schema that refers to what is not in it: nothing is fetched.
    """
    checker = Draft202012Validator.FORMAT_CHECKER
    try:
        Draft202012Validator(schema, format_checker=checker, registry=Registry()).validate(value)
    except ValidationError as error:
        where = "/".join(map(str, error.absolute_path)) or "the top"
        return f"at {where}: {error.message}"
    except Unresolvable as error:
        raise InvalidRequest(
            f"The schema refers to something that is not in it: {error}.", param="response_format"
        ) from error
    return None
