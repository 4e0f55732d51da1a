"""A tool's JSON Schema, narrowed to what a grammar can enforce and what surely ends.

Whatever is valid under the narrowed schema is valid under the one that was given, but for the keywords that ``loose``
names: these are checked afterwards. References are written out (recursion to a stated depth), strings and arrays get
bounds, an object that takes any name takes none in its closed form. What a model writes under it has therefore a
longest length, which ``longest`` tells. Not here: how calls are asked for and read (``calling``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pagoda.core.errors import InvalidRequest

_UNENFORCED = frozenset(
    {"multipleOf", "uniqueItems", "not", "if", "then", "else", "contains", "minContains", "maxContains"}
    | {"propertyNames", "minProperties", "maxProperties", "dependentRequired", "dependentSchemas"}
    | {"patternProperties", "unevaluatedProperties", "unevaluatedItems"}
)
_NUMBER_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_FORMATS = {"date": 10, "time": 24, "date-time": 40, "uuid": 36}
"""Formats that engines write, with their longest text."""
_BOUNDED_PATTERN = re.compile(r"\^(?:[^*+{}]|\{\d+\}|\{\d+,\d{1,3}\})*\$")
_LONGEST_PATTERN = 64
_NUMBER_CHARACTERS = 40
_SCALARS = ("string", "number", "boolean", "null")


class _Hopeless(Exception):
    """Control signal: nothing within the bounds is valid here, so that an optional part is left out."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The largest parts of a call: characters of a string, items of an array, rounds of a recursion."""

    characters: int = 500
    items: int = 16
    rounds: int = 3
    open_objects: bool = True
    """Whether objects without named properties may get any; their number has no bound."""


LADDER = (
    Bounds(),
    *(Bounds(c, i, r, False) for c, i, r in ((200, 8, 2), (80, 6, 2), (40, 4, 1), (16, 2, 1), (6, 1, 0))),
)
"""Bounds from roomy to tight; all but the first surely end."""


@dataclass(slots=True)
class Narrowed:
    """A narrowed schema and the keywords of the given one that it does not enforce."""

    schema: dict[str, Any]
    loose: set[str] = field(default_factory=set)


def narrow(schema: Mapping[str, Any], bounds: Bounds, where: str = "The schema") -> Narrowed:
    """The schema within bounds. Raises ``InvalidRequest`` where nothing can be valid; ``where`` begins its sentence."""
    loose: set[str] = set()
    try:
        return Narrowed(_Narrowing(schema, bounds, loose).part(schema), loose)
    except _Hopeless as error:
        raise InvalidRequest(f"{where} {error}.", code="invalid_json_schema") from None


def longest(schema: Mapping[str, Any]) -> int:
    """Characters of the longest JSON under a narrowed schema with closed objects, without white space."""
    if "const" in schema:
        return _size(schema["const"])
    if "enum" in schema:
        return max(_size(value) for value in schema["enum"])
    if "anyOf" in schema:
        return max(longest(option) for option in schema["anyOf"])
    match schema["type"]:
        case "object":
            return 2 + sum(_size(name) + 3 + longest(part) for name, part in schema["properties"].items())
        case "array" if "prefixItems" in schema:
            return 2 + sum(longest(part) + 2 for part in schema["prefixItems"])
        case "array":
            return 2 + int(schema["maxItems"]) * (longest(schema["items"]) + 2)
        case "string":
            return 2 + int(schema.get("maxLength") or _FORMATS.get(schema.get("format", ""), _LONGEST_PATTERN))
    return _NUMBER_CHARACTERS


def _size(value: Any) -> int:
    """Characters of a value as JSON."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


class _Narrowing:
    """One walk through a schema."""

    def __init__(self, root: Mapping[str, Any], bounds: Bounds, loose: set[str]) -> None:
        self._root = root
        self._bounds = bounds
        self._loose = loose
        self._within: list[str] = []
        """The references that are being written out."""

    def part(self, schema: Any) -> dict[str, Any]:
        """A part of the schema, narrowed."""
        if schema is False:
            raise _Hopeless("allows nothing in a place that must be filled")
        if schema is True or not schema:
            return {"anyOf": [self._typed({}, kind) for kind in _SCALARS]}
        if not isinstance(schema, Mapping):
            raise _Hopeless(f"has {schema!r} where a schema belongs")
        self._loose |= _UNENFORCED & schema.keys()
        if "$ref" in schema:
            return self._reference(schema)
        if "allOf" in schema:
            rest = {key: value for key, value in schema.items() if key != "allOf"}
            for each in schema["allOf"]:
                rest = _merged(rest, self._resolved(each))
            return self.part(rest)
        if "const" in schema:
            return {"const": schema["const"]}
        if "enum" in schema:
            return self._listed(schema)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return self._either(schema, word)
        return self._of_kind(schema)

    def _of_kind(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        kind = schema.get("type")
        if isinstance(kind, list):
            return self._first_of([{**schema, "type": each} for each in kind])
        if kind is None:
            kind = "object" if "properties" in schema else "array" if "items" in schema else None
        if kind is None:
            return self.part(True)
        return self._typed(schema, kind)

    def _typed(self, schema: Mapping[str, Any], kind: str) -> dict[str, Any]:
        match kind:
            case "object":
                return self._object(schema)
            case "array":
                return self._array(schema)
            case "string":
                return self._string(schema)
            case "integer" | "number":
                bounds = {word: schema[word] for word in _NUMBER_BOUNDS if word in schema}
                if bounds.get("minimum", -1e999) > bounds.get("maximum", 1e999):
                    raise _Hopeless("has a minimum above its maximum")
                if kind == "number":
                    self._loose.update(bounds)
                return {"type": kind, **bounds}
            case "boolean" | "null":
                return {"type": kind}
        raise _Hopeless(f"has the type {kind!r}, which JSON Schema does not know")

    def _object(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        given: Mapping[str, Any] = schema.get("properties") or {}
        required = [name for name in schema.get("required") or () if isinstance(name, str)]
        more = schema.get("additionalProperties", True)
        properties: dict[str, Any] = {}
        for name in (*given, *(name for name in required if name not in given)):
            try:
                properties[name] = self.part(given.get(name, more))
            except _Hopeless:
                if name in required:
                    raise
        narrowed: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
        if required:
            narrowed["required"] = required
        if not properties and more is not False and self._bounds.open_objects:
            narrowed = {"type": "object", "properties": {}, "additionalProperties": self.part(more)}
        return narrowed

    def _array(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        least, most = int(schema.get("minItems") or 0), schema.get("maxItems")
        if most is not None and least > most:
            raise _Hopeless("has minItems above maxItems")
        if row := schema.get("prefixItems"):
            return {"type": "array", "prefixItems": [self.part(each) for each in row], "items": False}
        most = max(least, self._bounds.items if most is None else min(int(most), self._bounds.items))
        try:
            items = self.part(schema.get("items", True))
        except _Hopeless:
            if least:
                raise
            return {"const": []}
        narrowed = {"type": "array", "items": items, "maxItems": most}
        return narrowed | {"minItems": least} if least else narrowed

    def _string(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        least, most = int(schema.get("minLength") or 0), schema.get("maxLength")
        if most is not None and least > most:
            raise _Hopeless("has minLength above maxLength")
        if pattern := schema.get("pattern"):
            if _BOUNDED_PATTERN.fullmatch(pattern):
                self._loose |= {"minLength", "maxLength"} & schema.keys()
                return {"type": "string", "pattern": pattern}
            self._loose.add("pattern")
        if (form := schema.get("format")) in _FORMATS:
            return {"type": "string", "format": form}
        if form:
            self._loose.add("format")
        most = max(least, self._bounds.characters if most is None else min(int(most), self._bounds.characters))
        narrowed = {"type": "string", "maxLength": most}
        return narrowed | {"minLength": least} if least else narrowed

    def _listed(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """An enumeration, without what its own type forbids."""
        kinds = schema.get("type")
        allowed = {kinds} if isinstance(kinds, str) else set(kinds or ())
        values = [value for value in schema["enum"] if not allowed or allowed & _kinds_of(value)]
        if not values:
            raise _Hopeless("has an enumeration without a valid value")
        return {"enum": values}

    def _either(self, schema: Mapping[str, Any], word: str) -> dict[str, Any]:
        rest = {key: value for key, value in schema.items() if key != word}
        if word == "oneOf":
            self._loose.add(word)  # that only one of them fits is not enforced
        return self._first_of([_merged(rest, self._resolved(each)) for each in schema[word]])

    def _first_of(self, options: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """All options that can be met."""
        found: list[dict[str, Any]] = []
        why = _Hopeless("offers a choice of nothing")
        for each in options:
            try:
                found.append(self.part(each))
            except _Hopeless as error:
                why = error
        if not found:
            raise why
        return found[0] if len(found) == 1 else {"anyOf": found}

    def _resolved(self, schema: Any) -> Any:
        """What a reference without more beside it refers to."""
        return self._target(schema["$ref"]) if isinstance(schema, Mapping) and "$ref" in schema else schema

    def _reference(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        reference = schema["$ref"]
        if self._within.count(reference) > self._bounds.rounds:
            raise _Hopeless(f"has no end: {reference} always needs itself again")
        rest = {key: value for key, value in schema.items() if key not in ("$ref", "$defs", "definitions")}
        self._within.append(reference)
        try:
            return self.part(_merged(rest, self._target(reference)))
        finally:
            self._within.pop()

    def _target(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise _Hopeless(f"refers to {reference!r}, which is not in it")
        found: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if not step:
                continue
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or name not in found:
                raise _Hopeless(f"refers to {reference}, which is not in it")
            found = found[name]
        return found


def _merged(left: Mapping[str, Any], right: Any) -> dict[str, Any]:
    """Both schemas at once, as far as they name different things; of the rest the right one's word counts."""
    if not isinstance(right, Mapping):
        return {**left} if right is True else {"enum": []}
    merged = {**left, **right}
    if "properties" in left and "properties" in right:
        merged["properties"] = {**left["properties"], **right["properties"]}
    if "required" in left and "required" in right:
        merged["required"] = list(dict.fromkeys((*left["required"], *right["required"])))
    return merged


def _kinds_of(value: Any) -> set[str]:
    """The types of JSON Schema that a value has."""
    match value:
        case bool():
            return {"boolean"}
        case int():
            return {"integer", "number"}
        case float():
            return {"number", "integer"} if value.is_integer() else {"number"}
        case str():
            return {"string"}
        case None:
            return {"null"}
    return {"array"} if isinstance(value, list) else {"object"}
