"""Reads tensors from a safetensors file with numpy alone. Not a writer, and no index of sharded checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagoda.core.errors import StoreError

HEADER_LIMIT = 100 * 1024 * 1024
"""The format's own bound on the header; a larger number means that this is another kind of file."""

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U8": "<u1"}


class Tensors(Mapping[str, NDArray[Any]]):
    """The tensors of some files by name, each mapped from its file when it is asked for; ``StoreError`` names a file
    that is not whole.

    ``BF16``, which numpy lacks, is widened to single precision then, which loses nothing: keep no more than you need.
    """

    def __init__(self, *paths: Path) -> None:
        self._places: dict[str, tuple[Path, dict[str, Any], NDArray[np.uint8]]] = {}
        for path in paths:
            header, start = _header(path)
            whole = path.stat().st_size > start
            data = np.memmap(path, np.uint8, "r", offset=start) if whole else np.empty(0, np.uint8)
            self._places |= {name: (path, about, data) for name, about in header.items()}

    def __getitem__(self, name: str) -> NDArray[Any]:
        path, about, data = self._places[name]
        try:
            return _tensor(path, name, about, data)
        except (KeyError, TypeError, ValueError) as error:
            raise broken(path, f"its header is malformed ({error})") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """All tensors by name, as ``Tensors`` gives them; ``StoreError`` names the file when it is not whole."""
    return dict(Tensors(path))


def tensor_sizes(path: Path) -> dict[str, int]:
    """The number of elements of each tensor, from the header alone; ``StoreError`` as ``read_tensors``."""
    return {name: size for name, (_, size) in _outline(path).items()}


def numbers_by_type(path: Path) -> dict[str, int]:
    """How many numbers a file holds in each type, from the header alone; ``StoreError`` as ``read_tensors``."""
    counts: dict[str, int] = {}
    for kind, size in _outline(path).values():
        counts[kind] = counts.get(kind, 0) + size
    return counts


def _outline(path: Path) -> dict[str, tuple[str, int]]:
    """Type and number of elements of each tensor."""
    header, _ = _header(path)
    try:
        return {
            name: (str(about["dtype"]), math.prod(int(side) for side in about["shape"]))
            for name, about in header.items()
        }
    except (KeyError, TypeError, ValueError) as error:
        raise broken(path, f"its header is malformed ({error})") from error


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The header's table, and where the data begins."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(HEADER_LIMIT, size - 8):
            raise broken(path, "it does not begin with a safetensors header")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise broken(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise broken(path, "its header is not a table")
    header.pop("__metadata__", None)
    return header, 8 + length


def _tensor(path: Path, name: str, about: dict[str, Any], data: NDArray[np.uint8]) -> NDArray[Any]:
    start, end = about["data_offsets"]
    shape = tuple(int(side) for side in about["shape"])
    kind = about["dtype"]
    if not 0 <= start <= end <= len(data):
        raise broken(path, f"it ends before its tensor {name}")
    raw = data[start:end]
    if kind == "BF16":
        wide = raw.view("<u2").astype("<u4") << 16
        return wide.view("<f4").reshape(shape)
    values = raw.view(TYPES[kind])
    if values.size != math.prod(shape):
        raise broken(path, f"its tensor {name} has another size than its shape")
    return values.reshape(shape)


def broken(path: Path, why: str) -> StoreError:
    """The error for a file that cannot be what its name says."""
    return StoreError(f"{path} is broken: {why}.", code="broken_file")
