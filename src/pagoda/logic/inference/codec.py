"""The port's values on the wire between Pagoda's own processes: JSON, one object a line for streams, errors included.

Both ends are the same version of this package on the same machine; this is not a public format.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import orjson
from pydantic import TypeAdapter

from pagoda.core import types
from pagoda.core.errors import PagodaError
from pagoda.service.lifecycle import Step

T = TypeVar("T")

REQUESTS: dict[str, type[Any]] = {
    "complete": types.Generation,
    "embed": types.Embed,
    "score": types.Score,
    "rerank": types.Rerank,
    "classify": types.Classify,
    "tokenize": types.Tokenize,
    "detokenize": types.Detokenize,
}
_EVENTS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (types.Started, types.Delta, types.CallDelta, types.Finish, types.Usage)
}
_adapters: dict[Any, TypeAdapter[Any]] = {}


def encode(value: Any) -> bytes:
    """A dataclass as JSON; bytes (vectors) travel as hexadecimal."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)


def decode(kind: type[T], raw: bytes | str | Any) -> T:
    """JSON (or what was parsed from it) as a dataclass."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    value = orjson.loads(raw) if isinstance(raw, bytes | str) else raw
    if kind is types.Embeddings:
        value["vectors"] = tuple(bytes.fromhex(vector) for vector in value["vectors"])
    result: T = _adapters[kind].validate_python(value)
    return result


def encode_event(event: types.Event) -> bytes:
    """An event as one line."""
    return encode({"type": type(event).__name__, "event": event}) + b"\n"


def encode_error(error: PagodaError) -> bytes:
    """An error as one line."""
    return encode({"type": "error", "class": type(error).__name__, "code": error.code, "values": vars(error)}) + b"\n"


def decode_line(line: bytes) -> types.Event:
    """The event of a line. Raises the error of a line that holds one."""
    payload = orjson.loads(line)
    if payload["type"] == "error":
        raise decode_error(payload)
    event: types.Event = decode(_EVENTS[payload["type"]], payload["event"])
    return event


def decode_step(line: bytes) -> Step:
    """The step of a line. Raises the error of a line that holds one."""
    payload = orjson.loads(line)
    if payload.get("type") == "error":
        raise decode_error(payload)
    return decode(Step, payload)


def decode_error(payload: dict[str, Any]) -> PagodaError:
    """The error as it was raised in the other process."""
    kind = {each.__name__: each for each in _tree(PagodaError)}[payload["class"]]
    error = kind.__new__(kind)
    Exception.__init__(error, payload["values"]["message"])
    error.__dict__.update(payload["values"], code=payload["code"])
    return error


def _tree(root: type[PagodaError]) -> Iterator[type[PagodaError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict) or hasattr(value, "items"):
        return dict(value)
    raise TypeError(f"{type(value).__name__} does not travel between processes")
