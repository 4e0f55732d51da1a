"""The checkpoint built from the GGUF file holds exactly its numbers, and says what it needs where torch is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pagoda.core.errors import PagodaError, Unavailable
from pagoda.model.catalog.opening import Shelf
from pagoda.model.catalog.recipes.dequantised import build
from pagoda.model.catalog.recipes.safetensors import read_tensors, tensor_sizes
from pagoda.model.catalog.store import silent

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(180)]


def test_the_weights_are_those_of_the_gguf_file(shelf: Shelf, checkpoint: Path) -> None:
    import gguf

    path = shelf.store.locate(shelf.catalog.resolve("smollm2-135m-instruct"))
    assert path is not None
    made = read_tensors(checkpoint / "model.safetensors")
    assert {name: values.size for name, values in made.items()} == tensor_sizes(checkpoint / "model.safetensors")
    names = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "blk.0.ffn_gate.weight": "model.layers.0.mlp.gate_proj.weight",
        "blk.29.ffn_down.weight": "model.layers.29.mlp.down_proj.weight",
        "blk.7.attn_v.weight": "model.layers.7.self_attn.v_proj.weight",
        "blk.7.attn_output.weight": "model.layers.7.self_attn.o_proj.weight",
    }
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for theirs, ours in names.items():
        expected = gguf.dequantize(tensors[theirs].data, tensors[theirs].tensor_type)
        assert np.array_equal(made[ours], expected.reshape(made[ours].shape)), ours
    assert not list(checkpoint.glob("*.bin"))


def test_without_torch_it_says_what_to_install(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = shelf.store.folder(shelf.catalog.resolve("smollm2-135m-instruct"))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(Unavailable, match=r"pip install 'pagoda-llm\[train\]'") as caught:
        build(origin, tmp_path / "out", silent)
    assert caught.value.code == "not_installed"
    assert not (tmp_path / "out").exists()


def test_a_broken_origin_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF nonsense")
    with pytest.raises(PagodaError, match=r"a\.gguf"):
        build(tmp_path, tmp_path / "out", silent)
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    with pytest.raises(PagodaError, match="2 GGUF files"):
        build(tmp_path, tmp_path / "out", silent)
