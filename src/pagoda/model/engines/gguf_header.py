"""The scalar metadata of a GGUF file, read in milliseconds.

``gguf.GGUFReader`` builds an array for each of a vocabulary's 250,000 pieces, which takes seconds; sizing a model needs
a dozen numbers. Layout: the GGUF specification, version 2 and 3 (little-endian).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

from pagoda.core.errors import Unavailable

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_ENTRIES = 100_000


def read_header(path: Path) -> dict[str, Any]:
    """Metadata by key, long arrays left out. Raises ``Unavailable`` when it is not a whole GGUF file."""
    found: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            magic, version, _tensors, entries = struct.unpack("<4sIQQ", _take(file, 24))
            if magic != b"GGUF" or version not in (2, 3) or entries > _MOST_ENTRIES:
                raise Unavailable(f"{path} is not a GGUF model file; pull or import the model again.", retryable=False)
            for _ in range(entries):
                key = _take(file, struct.unpack("<Q", _take(file, 8))[0]).decode("utf-8", "replace")
                value = _value(file, struct.unpack("<I", _take(file, 4))[0])
                if value is not None:
                    found[key] = value
    except (OSError, struct.error, KeyError, EOFError, OverflowError) as error:
        raise Unavailable(
            f"{path} is broken or cut short ({error}); pull or import the model again.", retryable=False
        ) from error
    return found


def _take(file: BinaryIO, length: int) -> bytes:
    if length > 1 << 30:
        raise EOFError("a length in its header is impossible")
    data = file.read(length)
    if len(data) < length:
        raise EOFError("its header ends too early")
    return data


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _take(file, struct.unpack("<Q", _take(file, 8))[0]).decode("utf-8", "replace")
    if kind != _ARRAY:
        form = "<" + _SCALARS[kind]
        return struct.unpack(form, _take(file, struct.calcsize(form)))[0]
    inner, count = struct.unpack("<IQ", _take(file, 12))
    if inner == _STRING:
        for _ in range(count):
            file.seek(struct.unpack("<Q", _take(file, 8))[0], 1)
        return None
    size = struct.calcsize("<" + _SCALARS[inner])
    if count > 4096:
        file.seek(size * count, 1)
        return None
    return list(struct.unpack(f"<{count}{_SCALARS[inner]}", _take(file, size * count)))
