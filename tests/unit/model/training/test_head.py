"""The loss that a head gives in pieces is that of the whole table of logits, and so are its slopes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from pagoda.model.training import head
from pagoda.model.training.encoding import IGNORED
from tests.tiny_models import byte_tokenizer, trainable_model


def slopes_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_head_in_pieces_gives_the_loss_and_slopes_of_all_logits(
    family: str, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "_ALIGNED", 4)
    monkeypatch.setattr(head, "_CELLS", 4)  # several pieces, the last one short
    whole, parts = (trainable_model(family, byte_tokenizer()) for _ in range(2))
    for model in (whole, parts):
        model.get_output_embeddings().requires_grad_(not frozen)
    ids = torch.randint(0, 250, (2, 12), generator=torch.Generator().manual_seed(3))
    labels = ids.clone()
    labels[0, 5:8] = labels[1, :4] = IGNORED

    found = head.find_head(parts, compiled=False)
    assert found is not None
    with found.learning(labels):
        loss = parts(input_ids=ids).logits
    wanted = torch.nn.functional.cross_entropy(
        whole(input_ids=ids).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
    )
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    torch.autograd.backward([loss / 3, wanted / 3])
    here, there = slopes_of(parts), slopes_of(whole)
    assert here.keys() == there.keys()
    for name, slope in here.items():
        torch.testing.assert_close(slope, there[name], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(parts(input_ids=ids).logits, whole(input_ids=ids).logits)  # and logits again


def test_a_head_that_caps_its_logits_is_left_alone() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma2Config(
        vocab_size=64,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=0.1,
        attn_implementation="eager",
        **sizes,
    )
    model = Gemma2ForCausalLM(config)
    assert head.find_head(model, compiled=False) is None
    config.final_logit_softcapping = None
    assert head.find_head(Gemma2ForCausalLM(config), compiled=False) is not None


def test_half_precision_learns_what_single_precision_does() -> None:
    whole, half = trainable_model("llama", byte_tokenizer()), trainable_model("llama", byte_tokenizer())
    ids = torch.randint(0, 250, (2, 24), generator=torch.Generator().manual_seed(3))
    wanted = whole(input_ids=ids, labels=ids).loss * 46
    wanted.backward()
    found = head.find_head(half, compiled=False)
    assert found is not None
    with torch.autocast("cpu", torch.bfloat16), found.learning(ids):
        loss = half(input_ids=ids).logits
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(wanted.item(), rel=2e-3)
    here, there = (torch.cat([each.flatten() for each in slopes_of(model).values()]) for model in (half, whole))
    assert torch.nn.functional.cosine_similarity(here, there, dim=0).item() > 0.999
