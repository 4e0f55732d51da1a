"""ONNX Runtime, for BERT encoders in GGUF files on a CPU; see ``onnxruntime_child``.

It computes in single precision whatever the file is packed in, and so two to three times as fast as llama.cpp, at the
price of four bytes a number in memory; the table of tokens, the larger part of a multilingual encoder, stays packed
and mapped. It generates and scores nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pagoda.core.errors import InvalidRequest, Unavailable
from pagoda.core.types import Tokenize
from pagoda.model.catalog.entry import ModelEntry
from pagoda.model.catalog.gguf_header import GgufHeader, read_gguf_header
from pagoda.model.engines.contract import LaunchPlan, Memory, Profile, Room
from pagoda.model.engines.own_child import OwnChild

_MIB = 1024 * 1024
_OVERHEAD_BYTES = 110 * _MIB  # the process with its native code, measured with a model of 2 MB
_BYTES_A_PIECE = 1100  # of the vocabulary, measured with 250,000
_EMBEDDINGS_A_SLOT = 16


class OnnxRuntime:
    """Launches ``onnxruntime_child`` and speaks to it."""

    name = "onnxruntime"
    runs = "process"
    parallel = 4

    def memory(self, model: ModelEntry, path: Path | None, room: Room) -> Memory:
        """The file, which is mapped; the layers' matrices in single precision; the process with its vocabulary."""
        del room
        found = _file(model, path)
        header = read_gguf_header(found)
        return Memory(
            weights=found.stat().st_size + _layer_bytes(header),
            kv_cache=0,
            overhead=_OVERHEAD_BYTES + header.pieces * _BYTES_A_PIECE,
        )

    def capacity(self, model: ModelEntry, room: Room) -> int:
        """Texts are short, and those that wait for the same batch cost it little."""
        del model
        return room.parallel * _EMBEDDINGS_A_SLOT

    def plan(self, model: ModelEntry, path: Path | None, room: Room, key: str) -> LaunchPlan:
        """Start ``onnxruntime_child`` on the model's file."""
        found = _file(model, path)
        header = read_gguf_header(found)
        if not header.encodes:
            raise Unavailable(
                f"{model.id} is no encoder of BERT's shape with mean or first-token pooling, which the engine "
                f"{self.name} runs; name the engine llamacpp in its entry.",
                code="unsupported_architecture",
                retryable=False,
            )
        return LaunchPlan(
            command=(sys.executable, "-m", "pagoda.model.engines.onnxruntime_child"),
            environment={
                "OPENBLAS_NUM_THREADS": "1",  # numpy only looks up and adds; its threads would be in the way
                "MALLOC_MMAP_THRESHOLD_": str(_MIB),  # what a start needs for a moment goes back to the system
            },
            config={
                "path": str(found),
                "key": key,
                "context": min(model.context or header.context or 512, header.context or 512),
                "threads": room.threads,
                "spin": room.spin,
            },
        )

    async def connect(self, model: ModelEntry, url: str, key: str, room: Room) -> OnnxRuntimeEngine:
        """Speak to a started child; its context is asked of it."""
        engine = OnnxRuntimeEngine(model, url, key, room, Profile(generate=False, embed=True, score=False))
        await engine.ask_context()
        return engine


class OnnxRuntimeEngine(OwnChild):
    """The common tongue of our own children."""

    kind = "onnxruntime"

    async def tokenized(self, request: Tokenize) -> tuple[str, dict[str, Any]]:
        """An encoder holds no conversation."""
        if request.messages is not None:
            raise InvalidRequest(f"{self.model.id} is an embedding model; it has no chat template.", param="messages")
        return await super().tokenized(request)


def _file(model: ModelEntry, path: Path | None) -> Path:
    if path is None or not path.is_file():
        raise Unavailable(f"{model.id} is no GGUF file.", code="model_broken", retryable=False)
    return path


def _layer_bytes(header: GgufHeader) -> int:
    """Four attention matrices and two of the feed-forward part in each layer; all else is small."""

    def number(name: str) -> int:
        return int(header.values.get(f"{header.architecture}.{name}", 0))

    width = number("embedding_length")
    return 4 * number("block_count") * width * (4 * width + 2 * number("feed_forward_length"))
