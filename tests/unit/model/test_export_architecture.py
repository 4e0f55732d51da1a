"""Families in GGUF: their weights come back as they were, and what llama.cpp computes otherwise is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from pagoda.core.errors import InvalidRequest
from pagoda.model.export.architecture import FAMILIES, family_of
from pagoda.model.export.gguf_file import write_gguf
from pagoda.model.quantize.forms import find_form
from pagoda.model.quantize.restoring import restore
from tests.tiny_models import make_model, make_tokenizer


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_file_gives_the_weights_of_its_checkpoint_back(family: str, tmp_path: Path) -> None:
    """Interleaved, transposed and centred ones too."""
    model, tokenizer = make_model(family), make_tokenizer()
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    write_gguf(tmp_path / "base", tokenizer, (2,), tmp_path / "file.gguf", find_form("F32"), lambda *_: None)

    back = restore(tmp_path / "file.gguf", make_model(family, seed=1)).state_dict()

    for name, values in model.state_dict().items():
        torch.testing.assert_close(back[name], values, atol=1e-6, rtol=1e-6, msg=name)


WINDOWED = {"sliding_window": 8, "query_pre_attn_scalar": 16, "hidden_activation": "gelu_pytorch_tanh"}
CAPPED = {**WINDOWED, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}


@pytest.mark.parametrize(
    ("family", "given", "said"),
    [
        ("gemma2", CAPPED, None),
        ("gemma2", CAPPED | {"attn_logit_softcapping": None}, "gemma2 has no attn_logit_softcapping of None"),
        ("gemma2", CAPPED | {"query_pre_attn_scalar": 64}, "no query_pre_attn_scalar of 64, only 16"),
        ("gemma2", CAPPED | {"sliding_window": None}, "no layers without sliding windows alone"),
        ("gemma2", CAPPED | {"layer_types": ["full_attention"] * 2}, "no order of windows but its own"),
        ("gemma2", CAPPED | {"hidden_activation": "gelu"}, "computes with gelu_pytorch_tanh, and this model with gelu"),
        ("gemma2", CAPPED | {"attention_bias": True}, "no attention_bias"),
        ("gemma3_text", WINDOWED, None),
        ("gemma3_text", WINDOWED | {"rope_theta": 1e6, "rope_local_base_freq": 1e4}, None),
        ("gemma3_text", WINDOWED | {"final_logit_softcapping": 30.0}, "gemma3 has no final_logit_softcapping"),
        ("gemma3_text", WINDOWED | {"use_bidirectional_attention": True}, "no use_bidirectional_attention"),
        ("gemma3_text", WINDOWED | {"sliding_window_pattern": 2}, "no order of windows but its own"),
        ("gemma3", {}, "written for .*gemma3_text, and this model is gemma3;"),
    ],
)
def test_what_llama_cpp_has_as_a_constant_is_refused(
    family: str, given: dict[str, Any], said: str | None, tmp_path: Path
) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"head_dim": 16, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "vocab_size": 99}
    config = {"model_type": family, **sizes, **more, **given}
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "gemma2")
    if said is None:
        family_of(config).shape(writer, config)
        return
    with pytest.raises(InvalidRequest, match=said):
        family_of(config).shape(writer, config)
