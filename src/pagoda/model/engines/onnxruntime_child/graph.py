"""A BERT encoder as an ONNX graph: from the vectors of tokens to one vector of unit length a text.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2018, in ONNX Runtime's fused operators
(``com.microsoft``: Attention, SkipLayerNormalization, BiasGelu). GELU is the exact one, as the checkpoints have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pagoda.model.catalog.gguf_content import GgufContent

_FUSED = "com.microsoft"
_OPSET, _FORMAT = 17, 8


@dataclass(frozen=True, slots=True)
class Graph:
    """A model whose matrices are given to it beside, so that they are never copied through its serialised form."""

    model: bytes
    matrices: Mapping[str, NDArray[np.float32]]


def build_graph(content: GgufContent) -> Graph:
    """The graph of a file's encoder. Raises ``KeyError`` for a tensor that is missing.

    Inputs: ``states`` [texts, tokens, width], token, position and type already added; ``mask`` [texts, tokens], int32,
    1 for a token; ``pooling`` [texts, 1, tokens], the share of each token in its text's vector. Output: ``vectors``
    [texts, width].
    """
    return _Graph(content).build()


class _Graph:
    def __init__(self, content: GgufContent) -> None:
        self._content = content
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._matrices: dict[str, NDArray[np.float32]] = {}

    def build(self) -> Graph:
        values = self._content.header.values
        self._epsilon = float(values["bert.attention.layer_norm_epsilon"])
        self._heads = int(values["bert.attention.head_count"])
        width = int(values["bert.embedding_length"])
        norm = [self._weight(f"token_embd_norm.{part}") for part in ("weight", "bias")]
        states = self._add("LayerNormalization", ["states", *norm], "embedded", axis=-1, epsilon=self._epsilon)
        for layer in range(int(values["bert.block_count"])):
            states = self._layer(f"blk.{layer}", states)
        pooled = self._add("MatMul", ["pooling", states], "pooled")
        flat = self._add("Squeeze", [pooled, self._keep("axis", np.array([1], np.int64))], "flat")
        self._add("LpNormalization", [flat], "vectors", axis=-1, p=2)
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [
                helper.make_tensor_value_info("states", TensorProto.FLOAT, ["texts", "tokens", width]),
                helper.make_tensor_value_info("mask", TensorProto.INT32, ["texts", "tokens"]),
                helper.make_tensor_value_info("pooling", TensorProto.FLOAT, ["texts", 1, "tokens"]),
            ],
            [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", width])],
            self._weights,
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_FUSED, 1)]
        model: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=_FORMAT).SerializeToString()
        return Graph(model, self._matrices)

    def _layer(self, layer: str, states: str) -> str:
        """One layer: attention, then the feed-forward part, each added to what came in and normalised."""
        parts = [f"{layer}.attn_{part}" for part in "qkv"]
        matrix = np.concatenate([self._values(f"{part}.weight") for part in parts])
        bias = np.concatenate([self._values(f"{part}.bias") for part in parts]).reshape(-1)
        joined = [self._matrix(f"{layer}.qkv.weight", matrix), self._keep(f"{layer}.qkv.bias", bias)]
        attended = self._add("Attention", [states, *joined, "mask"], f"{layer}.attended", _FUSED, num_heads=self._heads)
        told = self._product(attended, f"{layer}.attn_output")
        states = self._normalised(told, states, f"{layer}.attn_output_norm", f"{layer}.attn_output.bias")
        wide = self._product(states, f"{layer}.ffn_up")
        bent = self._add("BiasGelu", [wide, self._weight(f"{layer}.ffn_up.bias")], f"{layer}.bent", _FUSED)
        narrow = self._product(bent, f"{layer}.ffn_down")
        return self._normalised(narrow, states, f"{layer}.layer_output_norm", f"{layer}.ffn_down.bias")

    def _product(self, states: str, part: str) -> str:
        name = f"{part}.weight"
        return self._add("MatMul", [states, self._matrix(name, self._values(name))], part)

    def _normalised(self, added: str, states: str, norm: str, bias: str) -> str:
        inputs = [added, states, self._weight(f"{norm}.weight"), self._weight(f"{norm}.bias"), self._weight(bias)]
        return self._add("SkipLayerNormalization", inputs, norm, _FUSED, epsilon=self._epsilon)

    def _values(self, name: str) -> NDArray[np.float32]:
        return self._content.tensors[name].values()

    def _weight(self, name: str) -> str:
        """A vector of the file."""
        return self._keep(name, self._values(name).reshape(-1))

    def _matrix(self, name: str, values: NDArray[np.float32]) -> str:
        """A matrix that is given beside the model; GGUF has a row for each output, the graph one for each input."""
        self._matrices[name] = np.ascontiguousarray(values.T)
        place = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=values.T.shape)
        place.data_location = TensorProto.EXTERNAL
        place.external_data.add(key="location", value="memory")
        self._weights.append(place)
        return name

    def _keep(self, name: str, values: NDArray[Any]) -> str:
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _add(self, kind: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output
