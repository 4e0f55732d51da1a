"""Builds a GGUF file from the checkpoint of a BERT sentence encoder such as all-MiniLM-L6-v2.

Reads ``config.json``, ``tokenizer.json`` (WordPiece) and ``model.safetensors``. The matrices are stored in half
precision, everything else in single precision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from pagoda.core.ports import Progress
from pagoda.model.catalog.recipes.bert import Shape, Tensor, Vocabulary, contiguous, gguf_name, needed_names, write_bert
from pagoda.model.catalog.recipes.safetensors import broken, read_tensors

WORD_START = "▁"
"""llama.cpp marks pieces that begin a word; BERT marks (with ``##``) those that do not."""


def build(origin: Path, target: Path, progress: Progress) -> None:
    """Write ``target`` from the checkpoint folder ``origin``."""
    config = _read_json(origin / "config.json")
    weights = origin / "model.safetensors"
    progress("read", 0, None)
    tensors = _tensors(read_tensors(weights))
    try:
        shape = Shape(
            name="all-MiniLM-L6-v2",
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            heads=config["num_attention_heads"],
            feed_forward=config["intermediate_size"],
            context=config["max_position_embeddings"],
            epsilon=config["layer_norm_eps"],
            token_types=config["type_vocab_size"],
        )
    except KeyError as error:
        raise broken(origin / "config.json", f"it lacks {error}") from error
    if missing := sorted(set(needed_names(shape.layers)) - set(tensors)):
        raise broken(weights, f"it lacks {missing[0]}")
    vocabulary = _vocabulary(origin / "tokenizer.json", len(tensors["token_embd.weight"][0]))
    write_bert(target, shape, vocabulary, tensors, progress)


def _tensors(raw: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, values in raw.items():
        target = gguf_name(name)
        if target is None:
            continue
        matrix = values.ndim == 2 and target not in ("position_embd.weight", "token_types.weight")
        tensors[target] = (np.ascontiguousarray(values, np.float16) if matrix else contiguous(values), None)
    return tensors


def _vocabulary(path: Path, rows: int) -> Vocabulary:
    tokenizer = _read_json(path)
    try:
        pieces: dict[str, int] = tokenizer["model"]["vocab"]
        special = {added["content"]: added["id"] for added in tokenizer["added_tokens"] if added["special"]}
        kind = tokenizer["model"]["type"]
        roles = {
            "bos": special["[CLS]"],
            "eos": special["[SEP]"],
            "unk": special["[UNK]"],
            "sep": special["[SEP]"],
            "pad": special["[PAD]"],
            "mask": special["[MASK]"],
        }
    except (KeyError, TypeError) as error:
        raise broken(path, f"it lacks {error}") from error
    if kind != "WordPiece" or sorted(pieces.values()) != list(range(rows)):
        raise broken(path, f"it is not a WordPiece tokenizer of {rows} pieces")
    tokens = [b""] * rows
    types = [int(gguf.TokenType.NORMAL)] * rows
    for piece, index in pieces.items():
        tokens[index] = _piece(piece).encode()
    for index in special.values():
        types[index] = int(gguf.TokenType.CONTROL)
    types[roles["unk"]] = int(gguf.TokenType.UNKNOWN)
    return Vocabulary(model="bert", tokens=tokens, types=types, scores=None, special=roles)


def _piece(piece: str) -> str:
    if piece.startswith("[") and piece.endswith("]"):
        return piece
    return piece[2:] if piece.startswith("##") else WORD_START + piece


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise broken(path, f"it cannot be read ({error})") from error
