"""Recipes on miniature models of our own making: what they build, and how they refuse what is broken."""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st

from pagoda.core.errors import InvalidRequest, StoreError
from pagoda.model.catalog.recipes import RECIPES, find_recipe
from pagoda.model.catalog.recipes.charsmap import compile_charsmap
from pagoda.model.catalog.recipes.safetensors import read_tensors

HIDDEN, HEADS, FORWARD, CONTEXT = 32, 2, 64, 8


def silent(stage: str, done: int, total: int | None) -> None:
    pass


def save(path: Path, tensors: dict[str, Any]) -> None:
    """Write a safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, values in tensors.items():
        raw = np.ascontiguousarray(values, "<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "##ing", "世"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    draw = np.random.default_rng(0).standard_normal
    tensors = {
        "embeddings.word_embeddings.weight": draw((len(PIECES), HIDDEN)),
        "embeddings.position_embeddings.weight": draw((CONTEXT, HIDDEN)),
        "embeddings.token_type_embeddings.weight": draw((2, HIDDEN)),
        "embeddings.LayerNorm.weight": draw(HIDDEN),
        "embeddings.LayerNorm.bias": draw(HIDDEN),
        "pooler.dense.weight": draw((HIDDEN, HIDDEN)),
    }
    sizes = {"intermediate.dense": (FORWARD, HIDDEN), "output.dense": (HIDDEN, FORWARD)}
    for part in (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        *sizes,
    ):
        size = sizes.get(part, (HIDDEN, HIDDEN))
        tensors[f"encoder.layer.0.{part}.weight"] = draw(size)
        tensors[f"encoder.layer.0.{part}.bias"] = draw(size[0])
    for part in ("attention.output.LayerNorm", "output.LayerNorm"):
        tensors[f"encoder.layer.0.{part}.weight"] = draw(HIDDEN)
        tensors[f"encoder.layer.0.{part}.bias"] = draw(HIDDEN)
    save(folder / "model.safetensors", tensors)
    config = {
        "num_hidden_layers": 1,
        "hidden_size": HIDDEN,
        "num_attention_heads": HEADS,
        "intermediate_size": FORWARD,
        "max_position_embeddings": CONTEXT,
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    special = [{"id": index, "content": PIECES[index], "special": True} for index in range(5)]
    model = {"type": "WordPiece", "vocab": {piece: index for index, piece in enumerate(PIECES)}}
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": special, "model": model}))
    return folder


def tokens_of(reader: GGUFReader) -> list[str]:
    found = reader.get_field("tokenizer.ggml.tokens")
    assert found is not None
    tokens: list[str] = found.contents()
    return tokens


def test_minilm_becomes_gguf_with_wordpieces_as_llama_cpp_spells_them(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.gguf"
    find_recipe("minilm-gguf").load()(checkpoint, target, silent)
    reader = GGUFReader(target)
    assert tokens_of(reader) == [*PIECES[:5], "▁hello", "ing", "▁世"]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert len(tensors) == 5 + 2 * 8
    source = read_tensors(checkpoint / "model.safetensors")
    query = source["encoder.layer.0.attention.self.query.weight"].astype(np.float16)
    assert np.array_equal(tensors["blk.0.attn_q.weight"].data, query)
    assert np.array_equal(tensors["blk.0.attn_q.bias"].data, source["encoder.layer.0.attention.self.query.bias"])


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_cut_checkpoint_is_named(checkpoint: Path, tmp_path: Path, name: str) -> None:
    path = checkpoint / name
    whole = path.read_bytes()
    for length in (0, 4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=name) as caught:
            find_recipe("minilm-gguf").load()(checkpoint, tmp_path / "model.gguf", silent)
        assert caught.value.code == "broken_file"


def packed_model(context: int = CONTEXT) -> bytes:
    """A packed E5 model of one layer and eight pieces, whose embedding has two rows more."""
    pieces = [b"<s>", b"<pad>", b"</s>", b"<unk>", "▁".encode(), "▁a".encode(), "世".encode(), b"<mask>"]
    rows = len(pieces) + 2
    head = b"E5S1" + struct.pack("<I7ifi", 1, HIDDEN, 1, HEADS, FORWARD, rows, context, 2, 1e-12, 32)
    ends = np.cumsum([0, *map(len, pieces)])
    head += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, ends[-1])
    head += struct.pack(f"<{len(ends)}I", *ends) + struct.pack("<8f", 0, 0, 0, 0, -1, -2, -3, 0) + b"".join(pieces)
    replacements = struct.pack("<IBI", 10, 1, 32) + struct.pack("<IB", 1, 0) + struct.pack("<IBII", 0xFB01, 2, 102, 105)
    head += struct.pack("<iI", 3, len(replacements)) + replacements
    random = np.random.default_rng(1)
    plan: list[tuple[str, int, int]] = [
        ("emb.word", 1, rows * HIDDEN),
        ("emb.pos", 0, context * HIDDEN),
        ("emb.type", 0, 2 * HIDDEN),
        ("emb.ln.w", 0, HIDDEN),
        ("emb.ln.b", 0, HIDDEN),
    ]
    for part, height, width in (
        ("q", HIDDEN, HIDDEN), ("k", HIDDEN, HIDDEN), ("v", HIDDEN, HIDDEN), ("ao", HIDDEN, HIDDEN),
        ("fi", FORWARD, HIDDEN), ("fo", HIDDEN, FORWARD),
    ):  # fmt: skip
        plan += [(f"l0.{part}.w", 1, height * width), (f"l0.{part}.b", 0, height)]
    for part in ("aln", "oln"):
        plan += [(f"l0.{part}.w", 0, HIDDEN), (f"l0.{part}.b", 0, HIDDEN)]
    place = len(head) + 4 + sum(2 + len(name) + 21 for name, _, _ in plan)
    directory, data = struct.pack("<i", len(plan)), b""
    for name, kind, count in plan:
        size = count // 32 * 18 if kind else 4 * count
        directory += (
            struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", kind, count, place + len(data), size)
        )
        data += random.integers(0, 60, size, np.uint8).tobytes()
    return head + directory + data


def test_e5_becomes_gguf_and_its_blocks_are_copied_as_they_lie(tmp_path: Path) -> None:
    packed = packed_model()
    (tmp_path / "e5-small-q4.bin").write_bytes(packed)
    target = tmp_path / "model.gguf"
    find_recipe("e5-gguf").load()(tmp_path, target, silent)
    reader = GGUFReader(target)
    assert tokens_of(reader)[-3:] == ["<mask>", "[PAD8]", "[PAD9]"]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for name in ("token_embd.weight", "blk.0.attn_q.weight", "blk.0.ffn_down.weight"):
        assert tensors[name].tensor_type.name == "Q4_0"
        assert tensors[name].data.tobytes() in packed
    assert list(tensors["blk.0.ffn_down.weight"].shape) == [FORWARD, HIDDEN]


def test_a_packed_e5_cut_anywhere_is_named(tmp_path: Path) -> None:
    packed = packed_model()
    path = tmp_path / "e5-small-q4.bin"
    build = find_recipe("e5-gguf").load()
    for length in [*range(0, 700, 13), *range(700, len(packed), 1711), len(packed) - 1]:
        path.write_bytes(packed[:length])
        with pytest.raises(StoreError, match=r"e5-small-q4\.bin is broken"):
            build(tmp_path, tmp_path / "model.gguf", silent)


def test_another_file_under_its_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e5-small-q4.bin").write_bytes(b"GGUF" + bytes(1000))
    with pytest.raises(StoreError, match="not a packed E5 model"):
        find_recipe("e5-gguf").load()(tmp_path, tmp_path / "model.gguf", silent)


def walk(charsmap: bytes, text: bytes) -> Iterator[tuple[int, bytes]]:
    """The matches of a compiled map at the start of ``text``, as the format's definition reads them."""
    (length,) = struct.unpack_from("<I", charsmap)
    nodes = struct.unpack_from(f"<{length // 4}I", charsmap, 4)
    texts = charsmap[4 + length :]

    def children(node: int) -> int:
        return (node >> 10) << ((node & 512) >> 6)

    index = children(nodes[0])
    for count, byte in enumerate(text, 1):
        index ^= byte
        if nodes[index] & 0x800000FF != byte:
            return
        leaf = nodes[index] >> 8 & 1
        index ^= children(nodes[index])
        if leaf:
            start = nodes[index] & 0x7FFFFFFF
            yield count, texts[start : texts.index(b"\0", start)]


words = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(words, words | st.just(""), max_size=60), st.lists(words, max_size=20))
def test_a_compiled_charsmap_holds_its_replacements_and_nothing_else(
    replacements: dict[str, str], others: list[str]
) -> None:
    charsmap = compile_charsmap(replacements)
    for probe in [*replacements, *others]:
        expected = {
            len(key.encode()): text.encode()
            for key, text in replacements.items()
            if probe.encode().startswith(key.encode())
        }
        assert dict(walk(charsmap, probe.encode())) == expected


def test_a_charsmap_of_thousands_of_characters_is_whole() -> None:
    replacements = {chr(code): chr(code + 1) for code in range(0x80, 0xD7FF, 7)}
    charsmap = compile_charsmap(replacements)
    assert all(
        list(walk(charsmap, key.encode())) == [(len(key.encode()), text.encode())] for key, text in replacements.items()
    )


def test_every_recipe_leads_to_a_function() -> None:
    for recipe in RECIPES.values():
        module, _, name = recipe.target.partition(":")
        assert module.startswith("pagoda.model.")
        assert callable(getattr(importlib.import_module(module), name))
    with pytest.raises(InvalidRequest, match="minilm-gguf"):
        find_recipe("none")


def test_bfloat16_is_widened(tmp_path: Path) -> None:
    head = json.dumps({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head + struct.pack("<HH", 0x3F80, 0xC000))
    assert read_tensors(path)["x"].tolist() == [1.0, -2.0]
