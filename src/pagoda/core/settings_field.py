"""How a field of a settings section is declared."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    env: str = "",
) -> Any:
    """A field of a settings section: its default, what it means, and the values that are allowed.

    ``env`` is the environment's name for it where that is not made of section and field.
    """
    metadata = {"doc": doc, "low": low, "high": high, "choices": choices, "env": env}
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)
