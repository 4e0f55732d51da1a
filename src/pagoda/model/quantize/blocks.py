"""Weights as GGML's types: plain ones, blocks of 32 and K-quants of 256. Not which tensor gets which type.

The ``gguf`` package writes F32, F16, BF16, Q8_0 and the Q5 and Q4 types of 32; the K-quants are written by GGML's own
``ggml_quantize_chunk``, which the library inside ``xllamacpp`` exports, so that they are llama.cpp's to the bit.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from pagoda.core.errors import Unavailable

NUMPY_KINDS = {Kind.F32, Kind.F16}
"""Types that NumPy has itself."""
PLAIN = NUMPY_KINDS | {Kind.BF16}
BLOCKS = {Kind.Q8_0, Kind.Q5_1, Kind.Q5_0, Kind.Q4_1, Kind.Q4_0}
_ROWS = 4096
"""Rows encoded at once: bounds the memory beside the tensor itself."""


def encode(values: NDArray[Any], kind: Kind) -> NDArray[Any]:
    """A matrix of floats as GGML's ``kind``: shape (rows, bytes a row) of ``uint8``, or plain floats for F32 and F16.

    Raises ``Unavailable`` where the installed xllamacpp exports no encoder for a K-quant, ``ValueError`` where the
    row does not divide into blocks (``fits`` tells before).
    """
    if kind == Kind.F32:
        return np.ascontiguousarray(values, np.float32)
    if kind == Kind.F16:
        return np.ascontiguousarray(values, np.float16)
    single = np.ascontiguousarray(values, np.float32)
    rows = single.reshape(-1, single.shape[-1])
    if kind in PLAIN or kind in BLOCKS:
        parts = [gguf.quants.quantize(rows[start : start + _ROWS], kind) for start in range(0, len(rows), _ROWS)]
        return np.concatenate(parts)
    return _encode_with_ggml(rows, kind)


def decode(data: NDArray[Any], kind: Kind) -> NDArray[np.float32]:
    """The floats that GGML computes with."""
    found: NDArray[np.float32] = gguf.quants.dequantize(data, kind).astype(np.float32, copy=False)
    return found


def fits(width: int, kind: Kind) -> bool:
    """Whether a row of ``width`` numbers divides into the kind's blocks."""
    size: int = gguf.GGML_QUANT_SIZES[kind][0]
    return width % size == 0


def _encode_with_ggml(rows: NDArray[np.float32], kind: Kind) -> NDArray[np.uint8]:
    weights, size = gguf.GGML_QUANT_SIZES[kind]
    count, width = rows.shape
    if width % weights:
        raise ValueError(f"a row of {width} numbers does not divide into {kind.name}'s blocks of {weights}")
    out = np.empty((count, width // weights * size), np.uint8)
    written = _ggml_quantize()(int(kind), rows.ctypes.data, out.ctypes.data, 0, count, width, None)
    if written != out.nbytes:
        raise ValueError(f"GGML wrote {written} bytes of {kind.name} where {out.nbytes} were due")
    return out


@cache
def _ggml_quantize() -> Any:
    """``ggml_quantize_chunk(type, source, target, first, rows, width, importance)``, found in xllamacpp's library."""
    try:
        from xllamacpp import xllamacpp  # noqa: PLC0415  (100 MB of native code: only where it is needed)

        function = ctypes.CDLL(xllamacpp.__file__).ggml_quantize_chunk
    except (ImportError, OSError, AttributeError) as error:
        raise Unavailable(
            "K-quants need GGML's own encoder, which the installed xllamacpp does not export: install the version that "
            "constraints.txt names, or choose Q8_0, Q5_1, Q5_0, Q4_1 or Q4_0.",
            code="not_installed",
            retryable=False,
        ) from error
    function.restype = ctypes.c_size_t
    function.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    return function
