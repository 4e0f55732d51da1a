"""Reads what a GGUF file says about itself, and whether the file is whole. Loads no tensor and needs no engine."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pagoda.core.errors import StoreError

MAGIC = b"GGUF"
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
ENCODERS = (
    "bert",
    "nomic-bert",
    "nomic-bert-moe",
    "jina-bert-v2",
    "jina-bert-v3",
    "modern-bert",
    "neo-bert",
    "eurobert",
)
ALIGNMENT = 32
Reader = TypeVar("Reader", bound="HeaderReader")
_POOLINGS = {1: "mean", 2: "first"}
_SAMPLING = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_p": "top_p",
    "general.sampling.top_k": "top_k",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repetition_penalty",
}


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The values of a GGUF file's header; those of arrays are left out."""

    values: Mapping[str, Any] = field(default_factory=dict)
    least_bytes: int = 0
    """The file must be at least so long to hold all its tensors."""
    pieces: int = 0
    """Of its vocabulary."""

    @property
    def architecture(self) -> str:
        """Such as ``llama`` or ``bert``."""
        return str(self.values.get("general.architecture", ""))

    @property
    def context(self) -> int | None:
        """Tokens the model was trained to hold."""
        return self._number("context_length")

    @property
    def dimensions(self) -> int | None:
        """Width of the model, which is the length of its embeddings."""
        return self._number("embedding_length_out") or self._number("embedding_length")

    @property
    def embeds(self) -> bool:
        """Whether this is a model for embeddings: an encoder, or one that states how it pools."""
        return self.architecture in ENCODERS or bool(self._number("pooling_type"))

    @property
    def pooling(self) -> str:
        """How an encoder makes one vector of its tokens': ``mean``, ``first``, or empty for others."""
        return _POOLINGS.get(self._number("pooling_type") or 0, "")

    @property
    def encodes(self) -> bool:
        """Whether this is an encoder of BERT's own shape, with one of its tokenizers: WordPiece or unigram pieces."""
        tokenizer = self.values.get("tokenizer.ggml.model")
        return self.architecture == "bert" and bool(self.pooling) and tokenizer in ("bert", "t5")

    @property
    def chats(self) -> bool:
        """Whether it brings a chat template."""
        return bool(self.values.get("tokenizer.chat_template"))

    @property
    def sampling(self) -> dict[str, float]:
        """The sampling values its makers advise."""
        return {name: float(self.values[key]) for key, name in _SAMPLING.items() if key in self.values}

    def _number(self, name: str) -> int | None:
        value = self.values.get(f"{self.architecture}.{name}")
        return int(value) if isinstance(value, int) else None


def read_gguf_header(path: Path, advice: str = "fetch it again") -> GgufHeader:
    """Read the header; ``StoreError`` names the file, and gives ``advice``, when it is not a whole GGUF file."""
    return read_with(HeaderReader, path, advice)[1]


def read_with(kind: type[Reader], path: Path, advice: str = "fetch it again") -> tuple[Reader, GgufHeader]:
    """Read the header with a reader that may keep more of it. Raises as ``read_gguf_header``."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            reader = kind(file, size)
            header = reader.header()
    except _Malformed as error:
        raise StoreError(f"{path} is broken: {error}; {advice}.", code="broken_file") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    if size < header.least_bytes:
        message = f"{path} is cut short: it has {size} of at least {header.least_bytes} bytes; {advice}."
        raise StoreError(message, code="broken_file")
    return reader, header


class _Malformed(Exception):
    pass


class HeaderReader:
    """Reads a header from its begin to its end; the values of arrays and the places of tensors pass by."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._order = "<"
        self._counts: dict[str, int] = {}
        self.data = 0
        """Where the tensors begin, once the header is read."""

    def header(self) -> GgufHeader:
        """All of it."""
        if self._file.read(4) != MAGIC:
            raise _Malformed("it is not a GGUF file")
        version = self._one("I")
        if version & 0xFFFF == 0:
            self._order = ">"
            version = int.from_bytes(version.to_bytes(4, "little"), "big")
        if version not in (2, 3):
            raise _Malformed(f"its GGUF version is {version}, and 2 and 3 can be read")
        tensors, count = self._one("Q"), self._one("Q")
        values: dict[str, Any] = {}
        for _ in range(count):
            key = self._text()
            value = self._value(key, self._one("I"))
            if value is not None:
                values[key] = value
        return GgufHeader(values, self._end_of_tensors(tensors, values), self._counts.get("tokenizer.ggml.tokens", 0))

    def _end_of_tensors(self, count: int, values: Mapping[str, Any]) -> int:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType  # noqa: PLC0415 - brings numpy

        end = 0
        for _ in range(count):
            name = self._text()
            sides = [self._one("Q") for _ in range(self._one("I"))]
            kind, offset = self._one("I"), self._one("Q")
            self._see_tensor(name, sides, kind, offset)
            try:
                weights, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
            except ValueError:
                weights, size = 1, 0  # a newer type: at least its offset must lie inside the file
            end = max(end, offset + math.prod(sides) // weights * size)
        stated = values.get("general.alignment")
        alignment = stated if isinstance(stated, int) and stated > 0 else ALIGNMENT
        self.data = -(-self._file.tell() // alignment) * alignment
        return self.data + end if count else self._file.tell()

    def _see_tensor(self, name: str, sides: list[int], kind: int, offset: int) -> None:
        """Hear of a tensor: its sides (the innermost first), its type's number, and its place in the data."""

    def _take(self, length: int) -> bytes:
        if length > self._size:
            raise _Malformed("it ends inside its header")
        data = self._file.read(length)
        if len(data) < length:
            raise _Malformed("it ends inside its header")
        return data

    def _one(self, form: str) -> Any:
        return struct.unpack(self._order + form, self._take(struct.calcsize("<" + form)))[0]

    def _text(self) -> str:
        return self._take(self._one("Q")).decode("utf-8", errors="replace")

    def _value(self, key: str, kind: int) -> Any:
        if kind in SCALARS:
            return self._one(SCALARS[kind])
        if kind == STRING:
            return self._text()
        if kind == ARRAY:
            kind, count = self._one("I"), self._one("Q")
            self._counts[key] = count
            return self._array(key, kind, count)
        raise _Malformed("its header is garbled")

    def _array(self, key: str, kind: int, count: int) -> Any:
        del key
        if kind in SCALARS:
            size = struct.calcsize("<" + SCALARS[kind]) * count
            if size > self._size:
                raise _Malformed("it ends inside its header")
            self._file.seek(size, 1)
            return None
        if kind != STRING:
            raise _Malformed("its header is garbled")
        for _ in range(count):
            self._take(self._one("Q"))
        return None
