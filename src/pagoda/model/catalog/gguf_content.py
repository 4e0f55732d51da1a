"""What a GGUF file holds beside its header's values: lists such as the vocabulary, and the tensors, as numbers.

The ``gguf`` package reads the same, by an object for each piece of a vocabulary: 10 s and 1.7 GB for the 250,000 of
multilingual E5, which a start of an engine cannot wait for.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from pagoda.core.errors import StoreError
from pagoda.model.catalog.gguf_header import SCALARS, STRING, GgufHeader, HeaderReader, read_with


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """A tensor as it lies in the mapped file, a row of bytes for each of its rows."""

    rows: NDArray[np.uint8]
    kind: GGMLQuantizationType

    def values(self, places: Any = slice(None)) -> NDArray[np.float32]:
        """The numbers of all rows, or of those at ``places``. Raises ``StoreError`` for types that are not unpacked."""
        packed = np.ascontiguousarray(self.rows[places])
        try:
            found: NDArray[np.float32] = dequantize(packed, self.kind).astype(np.float32, copy=False)
        except NotImplementedError as error:
            raise StoreError(f"Tensors of type {self.kind.name} cannot be unpacked.", code="broken_file") from error
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufContent:
    """A GGUF file, read."""

    header: GgufHeader
    lists: Mapping[str, Any]
    """Arrays of the header by key: texts as ``list[bytes]``, numbers as an array."""
    tensors: Mapping[str, PackedTensor]


def read_gguf(path: Path) -> GgufContent:
    """Read a file, mapping its tensors. Raises ``StoreError`` as ``read_gguf_header`` and for types not known."""
    reader, header = read_with(_ContentReader, path)
    data = np.memmap(path, np.uint8, "r")
    tensors = {}
    for name, (sides, number, offset) in reader.places.items():
        try:
            kind = GGMLQuantizationType(number)
            weights, size = GGML_QUANT_SIZES[kind]
            rows = math.prod(sides[1:])
            begin, width = reader.data + offset, sides[0] // weights * size
            packed = data[begin : begin + rows * width].reshape(rows, width)
        except ValueError as error:
            raise StoreError(
                f"{path}: the type {number} of its tensor {name} is not known.", code="broken_file"
            ) from error
        tensors[name] = PackedTensor(packed, kind)
    return GgufContent(header=header, lists=reader.lists, tensors=tensors)


class _ContentReader(HeaderReader):
    """Keeps the arrays, and where the tensors lie."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file, size)
        self.lists: dict[str, Any] = {}
        self.places: dict[str, tuple[list[int], int, int]] = {}

    def _array(self, key: str, kind: int, count: int) -> None:
        if kind in SCALARS:
            form = np.dtype(self._order + SCALARS[kind])
            self.lists[key] = np.frombuffer(self._take(form.itemsize * count), form)
        elif kind == STRING and self._order == "<":
            self.lists[key] = [self._take(self._length()) for _ in range(count)]
        else:
            super()._array(key, kind, count)

    def _length(self) -> int:
        found: int = _LENGTH.unpack(self._take(8))[0]
        return found

    def _see_tensor(self, name: str, sides: list[int], kind: int, offset: int) -> None:
        self.places[name] = (sides, kind, offset)


_LENGTH = struct.Struct("<Q")
