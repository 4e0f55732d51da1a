"""The memory of a llama.cpp process beside its weights: how long its context is, and what keys and values take."""

from __future__ import annotations

from pagoda.model.catalog.entry import ModelEntry
from pagoda.model.catalog.gguf_header import GgufHeader
from pagoda.model.engines.contract import KvType, Room

LARGEST_DEFAULT_CONTEXT = 4096
MIB = 1024 * 1024
_LARGEST_PROMPT_CACHE_MIB = 256


def context_of(model: ModelEntry, header: GgufHeader, room: Room) -> int:
    """Context of one request, tokens."""
    own = model.context or header.context or 0
    if model.task == "embedding":
        return own or 512
    if room.context:
        return min(room.context, own) if own else room.context
    return min(own or LARGEST_DEFAULT_CONTEXT, LARGEST_DEFAULT_CONTEXT)


def slot_bytes(model: ModelEntry, header: GgufHeader, room: Room) -> int:
    """Keys and values of all requests that are computed at once."""
    if model.task == "embedding":
        return 0
    return int(_kv_bytes_per_token(header, room.kv_type) * context_of(model, header, room) * room.parallel)


def prompt_cache_mib(slot_bytes: int) -> int:
    """MiB for prompts that lost their slot: as much as the slots have, within reason."""
    return min(slot_bytes // MIB, _LARGEST_PROMPT_CACHE_MIB)


_KV_BYTES: dict[KvType, float] = {"f16": 2.0, "q8_0": 34 / 32}  # q8_0: 32 numbers of a byte and their 16-bit scale


def _kv_bytes_per_token(header: GgufHeader, kv_type: KvType) -> float:
    """A number for each layer, key-value head and dimension, of keys and of values."""

    def number(name: str, otherwise: int) -> int:
        return int(header.values.get(f"{header.architecture}.{name}", otherwise))

    heads = number("attention.head_count", 1)
    width = number("embedding_length", 0) // max(heads, 1)
    dimensions = number("attention.key_length", width) + number("attention.value_length", width)
    return number("block_count", 0) * number("attention.head_count_kv", heads) * dimensions * _KV_BYTES[kv_type]
