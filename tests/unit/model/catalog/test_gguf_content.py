"""What a GGUF file holds, read without an object for each piece of its vocabulary."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from pagoda.core.errors import StoreError
from pagoda.model.catalog.gguf_content import read_gguf

WORDS = ["[UNK]", "▁river", "水", "s"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_pooling_type(gguf.PoolingType.CLS)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(WORDS)
    writer.add_token_scores([0.0, -1.5, -2.5, -3.5])
    rows = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    for kind in (Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0):
        writer.add_tensor(f"{kind.name}.weight", gguf.quants.quantize(rows, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_is_read_is_what_the_gguf_package_reads(file: Path) -> None:
    content = read_gguf(file)
    assert [piece.decode() for piece in content.lists["tokenizer.ggml.tokens"]] == WORDS
    assert list(content.lists["tokenizer.ggml.scores"]) == [0.0, -1.5, -2.5, -3.5]
    assert content.header.encodes
    assert content.header.pooling == "first"
    assert content.header.pieces == len(WORDS)
    reference = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    assert content.tensors.keys() == reference.keys()
    for name, tensor in reference.items():
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(content.tensors[name].values(), expected)
        assert np.array_equal(content.tensors[name].values([3, 1]), expected[[3, 1]])


def test_a_file_that_is_cut_short_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(StoreError, match="cut short"):
        read_gguf(file)
