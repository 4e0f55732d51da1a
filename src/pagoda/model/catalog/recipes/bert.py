"""Writes a BERT encoder as GGUF (architecture ``bert``, mean pooling), the form llama.cpp embeds with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import gguf
import numpy as np
from numpy.typing import NDArray

from pagoda.core.ports import Progress
from pagoda.model.catalog.recipes.writing import write_out

Tensor: TypeAlias = tuple[NDArray[Any], "gguf.GGMLQuantizationType | None"]
"""Values, and their GGML type when they are packed blocks; ``None`` means that numpy's own type says it."""

LAYER_NAMES = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
"""A layer's parts: the name in a Hugging Face BERT checkpoint, and in GGUF."""

OUTER_NAMES = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
}
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")


def gguf_name(name: str) -> str | None:
    """The GGUF name of a BERT checkpoint's tensor; ``None`` for those that embedding does not use (the pooler)."""
    name = name.removeprefix("bert.")
    if name in OUTER_NAMES:
        return OUTER_NAMES[name]
    if (match := _LAYER.fullmatch(name)) and match[2] in LAYER_NAMES:
        return f"blk.{match[1]}.{LAYER_NAMES[match[2]]}.{match[3]}"
    return None


def needed_names(layers: int) -> Iterator[str]:
    """Every tensor a BERT encoder of so many layers must have, by GGUF name."""
    yield from OUTER_NAMES.values()
    for layer in range(layers):
        for part in LAYER_NAMES.values():
            yield f"blk.{layer}.{part}.weight"
            yield f"blk.{layer}.{part}.bias"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a BERT encoder."""

    name: str
    layers: int
    hidden: int
    heads: int
    feed_forward: int
    context: int
    epsilon: float
    token_types: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """A tokenizer as GGUF states it; ``charsmap`` is a SentencePiece normaliser in its compiled form."""

    model: str
    tokens: list[bytes]
    types: list[int]
    scores: list[float] | None
    special: Mapping[str, int]
    """Token ids by role: ``bos``, ``eos``, ``unk``, ``sep``, ``pad``, ``mask``."""
    charsmap: bytes = b""


def write_bert(
    target: Path, shape: Shape, vocabulary: Vocabulary, tensors: Mapping[str, Tensor], progress: Progress
) -> None:
    """Write the encoder to ``target``."""
    writer = gguf.GGUFWriter(target, "bert")
    _write_shape(writer, shape)
    _write_vocabulary(writer, vocabulary, shape.token_types)
    for name in needed_names(shape.layers):
        values, kind = tensors[name]
        writer.add_tensor(name, values, raw_dtype=kind)
    progress("build", 0, None)
    write_out(writer)
    size = target.stat().st_size
    progress("build", size, size)


def _write_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name(shape.name)
    writer.add_type("model")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_layer_norm_eps(shape.epsilon)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _write_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary, token_types: int) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_type_count(token_types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(True)
        writer.add_remove_extra_whitespaces(True)
    if vocabulary.charsmap:
        writer.add_precompiled_charsmap(vocabulary.charsmap)
    for role, token in vocabulary.special.items():
        getattr(writer, f"add_{role}_token_id")(token)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)


def contiguous(values: NDArray[Any]) -> NDArray[Any]:
    """The same values as single-precision floats in one piece, which is how GGUF wants norms and biases."""
    return np.ascontiguousarray(values, dtype=np.float32)
