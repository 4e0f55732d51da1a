"""Builds a GGUF file from the packed 4-bit form of multilingual-e5-small (``e5-small-q4.bin``).

The packed file holds, little-endian: ``E5S1``, a version, the encoder's sizes, a unigram tokenizer (pieces, scores
and a map that normalises single characters), a directory, and the tensors. Its matrices are GGML Q4_0 blocks and are
copied as they lie; no value is computed anew.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from pagoda.core.ports import Progress
from pagoda.model.catalog.recipes.bert import Shape, Tensor, Vocabulary, contiguous, needed_names, write_bert
from pagoda.model.catalog.recipes.charsmap import compile_charsmap
from pagoda.model.catalog.recipes.safetensors import broken

PACKED_NAME = "e5-small-q4.bin"
MAGIC = b"E5S1"
VERSION = 1
BLOCK_WEIGHTS = 32
BLOCK_BYTES = 18
SINGLE, BLOCKS = 0, 1
UNUSED_SCORE = -1000.0

LAYER_PARTS = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "ao": "attn_output",
    "aln": "attn_output_norm",
    "fi": "ffn_up",
    "fo": "ffn_down",
    "oln": "layer_output_norm",
}
OUTER_PARTS = {
    "emb.word": "token_embd.weight",
    "emb.pos": "position_embd.weight",
    "emb.type": "token_types.weight",
    "emb.ln.w": "token_embd_norm.weight",
    "emb.ln.b": "token_embd_norm.bias",
}


def build(origin: Path, target: Path, progress: Progress) -> None:
    """Write ``target`` from the packed file in the folder ``origin``."""
    path = origin / PACKED_NAME
    progress("read", 0, None)
    try:
        packed = _Packed.read(path)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise broken(path, "it ends too early or is garbled") from error
    except OSError as error:
        raise broken(path, f"it cannot be read ({error.strerror})") from error
    write_bert(target, packed.shape, packed.vocabulary, packed.tensors, progress)


@dataclass(frozen=True, slots=True)
class _Packed:
    shape: Shape
    vocabulary: Vocabulary
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> _Packed:
        cursor = _Cursor(path)
        if cursor.take(4) != MAGIC or cursor.unpack("<I") != (VERSION,):
            raise broken(path, "it is not a packed E5 model of version 1")
        hidden, layers, heads, feed_forward, rows, context, types = cursor.unpack("<7i")
        (epsilon,) = cursor.unpack("<f")
        if cursor.unpack("<i") != (BLOCK_WEIGHTS,):
            raise broken(path, "its blocks are not of 32 weights")
        shape = Shape(
            name="multilingual-e5-small",
            layers=layers,
            hidden=hidden,
            heads=heads,
            feed_forward=feed_forward,
            context=context,
            epsilon=epsilon,
            token_types=types,
        )
        vocabulary = _read_vocabulary(cursor, rows)
        tensors = _read_tensors(cursor, shape, rows)
        if missing := sorted(set(needed_names(layers)) - set(tensors)):
            raise broken(path, f"it lacks {missing[0]}")
        return cls(shape, vocabulary, tensors)


class _Cursor:
    """Reads on from a place in the mapped file; ``struct.error`` when the file ends first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: NDArray[np.uint8] = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
        self.place = 0

    def take(self, length: int) -> bytes:
        return self.slice(self.place, length, advance=True).tobytes()

    def unpack(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def slice(self, start: int, length: int, *, advance: bool = False) -> NDArray[np.uint8]:
        if length < 0 or start < 0 or start + length > len(self.data):
            raise struct.error("the file ends early")
        if advance:
            self.place = start + length
        return self.data[start : start + length]


def _read_vocabulary(cursor: _Cursor, rows: int) -> Vocabulary:
    count, bos, eos, pad, unknown = cursor.unpack("<5i")
    (length,) = cursor.unpack("<Q")
    offsets = np.frombuffer(cursor.take(4 * (count + 1)), "<u4")
    scores = np.frombuffer(cursor.take(4 * count), "<f4").tolist()
    pieces = cursor.take(length)
    if not 0 < count <= rows or offsets[-1] > length or max(bos, eos, pad, unknown) >= count:
        raise broken(cursor.path, "its tokenizer is garbled")
    tokens = [pieces[offsets[index] : offsets[index + 1]] for index in range(count)]
    types = [int(gguf.TokenType.NORMAL)] * count
    mask = tokens.index(b"<mask>") if b"<mask>" in tokens else None
    for index in (bos, eos, pad, *([] if mask is None else [mask])):
        types[index] = int(gguf.TokenType.CONTROL)
    types[unknown] = int(gguf.TokenType.UNKNOWN)
    # The embedding matrix has more rows than there are pieces, and llama.cpp wants a token for each row.
    spare = range(count, rows)
    special = {"bos": bos, "eos": eos, "unk": unknown, "sep": eos, "pad": pad}
    return Vocabulary(
        model="t5",
        tokens=tokens + [f"[PAD{index}]".encode() for index in spare],
        types=types + [int(gguf.TokenType.UNUSED)] * len(spare),
        scores=scores + [UNUSED_SCORE] * len(spare),
        special=special if mask is None else {**special, "mask": mask},
        charsmap=compile_charsmap(_read_replacements(cursor)),
    )


def _read_replacements(cursor: _Cursor) -> dict[str, str]:
    count, length = cursor.unpack("<iI")
    table = cursor.take(length)
    replacements: dict[str, str] = {}
    place = 0
    for _ in range(count):
        character, outputs = struct.unpack_from("<IB", table, place)
        place += 5
        text = "".join(map(chr, struct.unpack_from(f"<{outputs}I", table, place)))
        place += 4 * outputs
        replacements[chr(character)] = text
    return replacements


def _read_tensors(cursor: _Cursor, shape: Shape, rows: int) -> dict[str, Tensor]:
    widths = {"ffn_down": shape.feed_forward}
    heights = {"ffn_up": shape.feed_forward}
    tensors: dict[str, Tensor] = {}
    (count,) = cursor.unpack("<i")
    for _ in range(count):
        (length,) = cursor.unpack("<H")
        packed_name = cursor.take(length).decode()
        name = _gguf_name(packed_name)
        if not name:
            raise broken(cursor.path, f"it holds an unknown tensor {packed_name!r}")
        kind, size, start, stored = cursor.unpack("<BIQQ")
        part = name.split(".")[2] if name.startswith("blk.") else ""
        if kind == SINGLE:
            values = cursor.slice(start, 4 * size).view("<f4")
            if name in ("position_embd.weight", "token_types.weight"):
                values = values.reshape(-1, shape.hidden)
            tensors[name] = (contiguous(values), None)
            continue
        height = rows if name == "token_embd.weight" else heights.get(part, shape.hidden)
        width = widths.get(part, shape.hidden)
        if kind != BLOCKS or size != height * width or stored != size // BLOCK_WEIGHTS * BLOCK_BYTES:
            raise broken(cursor.path, f"its tensor {name} has another size than the model's")
        blocks = cursor.slice(start, stored).reshape(height, width // BLOCK_WEIGHTS * BLOCK_BYTES)
        tensors[name] = (blocks, gguf.GGMLQuantizationType.Q4_0)
    return tensors


def _gguf_name(name: str) -> str:
    if name in OUTER_PARTS:
        return OUTER_PARTS[name]
    layer, _, rest = name.partition(".")
    part, _, kind = rest.partition(".")
    if part not in LAYER_PARTS or kind not in ("w", "b"):
        return ""
    return f"blk.{layer[1:]}.{LAYER_PARTS[part]}.{'weight' if kind == 'w' else 'bias'}"
