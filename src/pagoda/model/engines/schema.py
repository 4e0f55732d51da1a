"""What a JSON Schema uses, to tell which of it an engine enforces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def keywords(schema: Any) -> set[str]:
    """Every keyword that a JSON Schema uses, at any depth; names of properties are not keywords."""
    found: set[str] = set()
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            found.add(key)
            if key in ("properties", "patternProperties", "$defs", "definitions") and isinstance(value, Mapping):
                for child in value.values():
                    found |= keywords(child)
            elif key not in ("enum", "const", "default", "examples"):
                found |= keywords(value)
    elif isinstance(schema, Sequence) and not isinstance(schema, str):
        for child in schema:
            found |= keywords(child)
    return found
