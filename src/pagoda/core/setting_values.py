"""The values that settings take, and how text from a file, the environment or a flag becomes one of them."""

from __future__ import annotations

import math
import re
from typing import Any, TypeVar

T = TypeVar("T")


class Secret(str):
    """A string that shows itself as ``***``; ``reveal()`` gives the value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"

    def __str__(self) -> str:
        return "***" if self else ""

    def reveal(self) -> str:
        """The secret itself."""
        return str.__str__(self)


class ByteSize(int):
    """A number of bytes, which may be written as ``8GB`` or ``512MiB``."""


def _bool(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if isinstance(raw, str) and raw.lower() in words:
        return words[raw.lower()]
    raise ValueError("must be true or false")


def _number(raw: Any, kind: type[T], what: str) -> T:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str) or (kind is int and isinstance(raw, float)):
        raise ValueError(f"must be {what}")
    try:
        value = kind(raw)  # type: ignore[call-arg]
    except ValueError:
        raise ValueError(f"must be {what}") from None
    if not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(f"must be {what}")
    return value


def _bytes(raw: Any) -> ByteSize:
    units = {"": 1, "b": 1} | {
        name + tail: base**power
        for power, name in enumerate(("k", "m", "g", "t"), start=1)
        for base, tail in ((1000, ""), (1000, "b"), (1024, "ib"))
    }
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(raw).lower()) if not isinstance(raw, bool) else None
    if match is None or match[2] not in units:
        raise ValueError("must be a number of bytes, or a size such as 8GB or 512MiB")
    return ByteSize(float(match[1]) * units[match[2]])


def _text(raw: Any, kind: type[str] = str) -> str:
    if not isinstance(raw, str):
        raise ValueError("must be text")
    return kind(raw)


def _list(raw: Any) -> list[str]:
    if isinstance(raw, str):
        return [item.strip() for item in raw.split(",") if item.strip()]
    if isinstance(raw, list | tuple) and all(isinstance(item, str) for item in raw):
        return list(raw)
    raise ValueError("must be a list of texts")


def _table(raw: Any) -> dict[str, str]:
    if isinstance(raw, str):
        pairs = [item.partition("=") for item in _list(raw)]
        if any(not sign or not key.strip() for key, sign, _ in pairs):
            raise ValueError("must be name=model pairs separated by commas")
        return {key.strip(): value.strip() for key, _, value in pairs}
    if isinstance(raw, dict) and all(isinstance(value, str) for value in raw.values()):
        return dict(raw)
    raise ValueError("must be a table of texts")


PARSERS: dict[Any, Any] = {
    bool: _bool,
    int: lambda raw: _number(raw, int, "a whole number"),
    float: lambda raw: _number(raw, float, "a number"),
    str: _text,
    ByteSize: _bytes,
    Secret: lambda raw: _text(raw, Secret),
    tuple: _list,
    dict: _table,
}
