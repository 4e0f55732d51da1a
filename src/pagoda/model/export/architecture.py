"""The families of checkpoints that can be written as GGUF: their shape, the names of their tensors, their layout.

A family is here once a test has shown that llama.cpp computes the same log-probabilities as transformers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import gguf
import numpy as np
from numpy.typing import NDArray

from pagoda.core.errors import InvalidRequest

Config: TypeAlias = Mapping[str, Any]
_PREFIX = re.compile(r"^(?:model|transformer)\.")
"""Of a checkpoint's tensors; what the hub has of GPT-2 goes without."""
_GELU = "gelu_pytorch_tanh"
_LAYER = re.compile(r"(?:layers|h)\.(\d+)\.(.+)")

_LLAMA_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_GEMMA_PARTS = _LLAMA_PARTS | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
"""Of Gemma 2 and 3; the first has the parts of Llama."""
_GPT2_PARTS = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
_OUTER = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One architecture of transformers in GGUF's words."""

    name: str
    """GGUF's architecture."""
    parts: Mapping[str, str]
    shape: Callable[[gguf.GGUFWriter, Config], None]
    rotates: bool = False
    """Whether llama.cpp wants the halves of each head's queries and keys interleaved."""
    transposed: bool = False
    """Whether its matrices are stored inputs first (GPT-2's ``Conv1D``)."""
    centred: bool = False
    """Whether the weights of its norms are stored as what they are above one (Gemma), which GGUF has added."""
    activations: tuple[str, ...] = ("silu",)
    """What llama.cpp computes for it, in the words of transformers."""

    def tensors(self, state: Mapping[str, NDArray[Any]], config: Config) -> Iterator[tuple[str, NDArray[Any]]]:
        """GGUF names and values of a checkpoint's tensors. Raises ``InvalidRequest`` naming one it has no place for."""
        tied = bool(config.get("tie_word_embeddings"))
        for name, values in state.items():
            target = self._name(name)
            if target is None or (tied and target == "output.weight"):
                continue
            yield target, self._layout(name, values, config)
        if self.rotates and (slowed := _slowed(config)) is not None:
            yield "rope_freqs.weight", slowed

    def restored(
        self, names: Iterable[str], tensors: Mapping[str, NDArray[Any]], config: Config
    ) -> Iterator[tuple[str, NDArray[Any]]]:
        """The way back: a checkpoint's tensors, by its own names, from those of a GGUF file."""
        for name in names:
            target = self._name(name)
            if target is not None and target in tensors:
                yield name, self._layout(name, tensors[target], config, back=True)

    def adapted(self, module: str, rows: NDArray[Any], config: Config) -> tuple[str, NDArray[Any]]:
        """The GGUF tensor that a module's adapter changes, and the adapter's outputs (rows) in that tensor's order."""
        name = f"{module}.weight"
        target = self._name(name)
        if target is None:
            raise InvalidRequest(f"GGUF's architecture {self.name} has no place for {module}.", param="model")
        return target, rows if self.transposed else self._layout(name, rows, config)

    def _name(self, name: str) -> str | None:
        stem, _, kind = _PREFIX.sub("", name).rpartition(".")
        if match := _LAYER.fullmatch(stem):
            if match[2] in self.parts:
                return f"blk.{match[1]}.{self.parts[match[2]]}.{kind}"
            if match[2] in ("attn",) and kind in ("bias", "masked_bias"):
                return None  # GPT-2's causal mask, which older checkpoints carry along
        elif stem in _OUTER:
            return f"{_OUTER[stem]}.{kind}"
        raise InvalidRequest(f"GGUF's architecture {self.name} has no place for the tensor {name}.")

    def _layout(self, name: str, values: NDArray[Any], config: Config, *, back: bool = False) -> NDArray[Any]:
        if self.transposed and values.ndim == 2 and _LAYER.match(_PREFIX.sub("", name)):
            return np.ascontiguousarray(values.T)
        if self.rotates and ".self_attn." in name and (".q_proj." in name or ".k_proj." in name):
            heads = int(config["num_attention_heads"])
            kept = heads if ".q_proj." in name else int(config.get("num_key_value_heads") or heads)
            return _interleaved(values, kept, back=back)
        if self.centred and name.endswith("norm.weight"):
            return np.asarray(values, np.float32) + (-1 if back else 1)
        return values


def _interleaved(values: NDArray[Any], heads: int, *, back: bool) -> NDArray[Any]:
    """Rows of each head from (first half, second half) to pairs, which is how llama.cpp rotates this family."""
    half = values.shape[0] // heads // 2
    pairs = values.reshape(heads, *((half, 2) if back else (2, half)), *values.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(values.shape))


def _llama_shape(writer: gguf.GGUFWriter, config: Config) -> None:
    heads = int(config["num_attention_heads"])
    width = int(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    _rope(writer, config)


def _gemma_shape(writer: gguf.GGUFWriter, config: Config) -> None:
    if config.get("attention_bias"):
        raise _lacks("gemma", "attention_bias")
    _llama_shape(writer, config)


def _gemma2_shape(writer: gguf.GGUFWriter, config: Config) -> None:
    _check_window("gemma2", config, pattern=2, scaled_by_width=46)
    for key, write in (
        ("attn_logit_softcapping", writer.add_attn_logit_softcapping),
        ("final_logit_softcapping", writer.add_final_logit_softcapping),
    ):
        if not config.get(key):
            raise _lacks("gemma2", f"{key} of {config.get(key)}")
        write(float(config[key]))
    writer.add_sliding_window(int(config["sliding_window"]))
    _gemma_shape(writer, config)


def _gemma3_shape(writer: gguf.GGUFWriter, config: Config) -> None:
    _check_window("gemma3", config, pattern=6, scaled_by_width=62)
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if config.get(key):
            raise _lacks("gemma3", key)
    writer.add_sliding_window(int(config["sliding_window"]))
    windows = (config.get("rope_parameters") or {}).get("sliding_attention", {})
    if str(windows.get("rope_type") or "default") != "default":
        raise _lacks("gemma3", f"rotary positions of the kind {windows['rope_type']} inside the window")
    near = windows.get("rope_theta") or config.get("rope_local_base_freq") or 10000.0
    writer.add_rope_freq_base_swa(float(near))
    _gemma_shape(writer, config)


def _check_window(name: str, config: Config, *, pattern: int, scaled_by_width: int) -> None:
    """Refuse what llama.cpp has as a constant of the architecture: which layers see a window only (all but the last of
    each ``pattern``), and by what attention is scaled: a head's width, or, with ``scaled_by_width`` layers, the model's
    over its heads."""
    layers, heads = layers_of(config), int(config["num_attention_heads"])
    kinds = ["full_attention" if layer % pattern == pattern - 1 else "sliding_attention" for layer in range(layers)]
    stated = config.get("layer_types") or kinds
    if list(stated) != kinds or config.get("sliding_window_pattern") not in (None, pattern):
        raise _lacks(name, "order of windows but its own")
    if not config.get("sliding_window"):
        raise _lacks(name, "layers without sliding windows alone")
    if config.get("use_bidirectional_attention"):
        raise _lacks(name, "use_bidirectional_attention")
    width = config["hidden_size"] // heads if layers == scaled_by_width else int(config["head_dim"])
    if float(config.get("query_pre_attn_scalar") or width) != width:
        raise _lacks(name, f"query_pre_attn_scalar of {config['query_pre_attn_scalar']}, only {width}")


def _lacks(name: str, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"llama.cpp's {name} has no {what}; `pagoda export --to safetensors` writes what the transformers engine runs."
    )


def _rope(writer: gguf.GGUFWriter, config: Config) -> None:
    rope, kind = _scaling(config)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0))
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    elif kind not in ("default", "llama3"):  # the latter is a tensor of its own
        raise InvalidRequest(
            f"GGUF is written for rotary positions of the kinds default, linear and llama3, not {kind}; "
            "`pagoda export --to safetensors` works."
        )


def _scaling(config: Config) -> tuple[Config, str]:
    """How rotary positions are stretched, and the kind of it; older checkpoints say it in ``rope_scaling``."""
    rope: Config = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope = rope.get("full_attention", rope)  # Gemma 3 has others inside its window
    return rope, str(rope.get("rope_type") or rope.get("type") or "default")


def _slowed(config: Config) -> NDArray[Any] | None:
    """By how much each frequency is slowed in Llama 3.1's way: long waves by the factor, short ones not.

    As ``rope_freqs.weight``, by which llama.cpp divides, shape (half of a head,).
    """
    rope, kind = _scaling(config)
    if kind != "llama3":
        return None
    width = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    base = float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    waves = 2 * np.pi * base ** (np.arange(0, width, 2) / width)
    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    smooth = np.clip((float(rope["original_max_position_embeddings"]) / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def _gpt2_shape(writer: gguf.GGUFWriter, config: Config) -> None:
    for key in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"):
        if config.get(key):
            raise _lacks("gpt2", key)
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_feed_forward_length(int(config.get("n_inner") or 4 * config["n_embd"]))
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])


FAMILIES = {
    "llama": Family(name="llama", parts=_LLAMA_PARTS, shape=_llama_shape, rotates=True),
    "mistral": Family(name="llama", parts=_LLAMA_PARTS, shape=_llama_shape, rotates=True),
    "qwen2": Family(name="qwen2", parts=_LLAMA_PARTS, shape=_llama_shape),
    "qwen3": Family(name="qwen3", parts=_LLAMA_PARTS, shape=_llama_shape),
    "gpt2": Family(name="gpt2", parts=_GPT2_PARTS, shape=_gpt2_shape, transposed=True, activations=("gelu_new", _GELU)),
    "gemma": Family(name="gemma", parts=_LLAMA_PARTS, shape=_gemma_shape, centred=True, activations=(_GELU,)),
    "gemma2": Family(name="gemma2", parts=_GEMMA_PARTS, shape=_gemma2_shape, centred=True, activations=(_GELU,)),
    "gemma3_text": Family(name="gemma3", parts=_GEMMA_PARTS, shape=_gemma3_shape, centred=True, activations=(_GELU,)),
}
"""By ``model_type`` of the checkpoint's config."""


def family_of(config: Config) -> Family:
    """The family of a checkpoint. Raises ``InvalidRequest`` naming those that are written, and what a config asks."""
    kind = str(config.get("model_type", ""))
    if kind not in FAMILIES:
        raise InvalidRequest(
            f"GGUF is written for {', '.join(FAMILIES)}, and this model is {kind or 'of no named type'}; "
            "`pagoda export --to safetensors` works."
        )
    for key, unsupported in (("mlp_bias", True), ("use_sliding_window", True)):
        if config.get(key) is unsupported:
            raise InvalidRequest(f"GGUF is not written for a {kind} model with {key}; `--to safetensors` works.")
    if kind == "mistral" and config.get("sliding_window"):
        raise InvalidRequest(
            "GGUF's llama has no sliding window, and this mistral model has; `--to safetensors` works."
        )
    family = FAMILIES[kind]
    stated = (config.get(key) for key in ("hidden_activation", "hidden_act", "activation_function"))
    used = next(filter(None, stated), family.activations[0])
    if used not in family.activations:
        raise InvalidRequest(f"llama.cpp's {kind} computes with {family.activations[0]}, and this model with {used}.")
    return family


def layers_of(config: Config) -> int:
    """How many layers a config states."""
    return int(config.get("num_hidden_layers") or config["n_layer"])
