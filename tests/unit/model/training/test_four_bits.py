"""QLoRA: learns on a CPU too, with right gradients after an evaluation, and is exported on the base that it saw."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from pagoda.core.errors import Unavailable
from pagoda.model.export.folder import FOUR_BITS, read_table
from pagoda.model.export.merging import load_trained, save_merged
from pagoda.model.training.adapting import four_bits
from tests.tiny_models import byte_tokenizer, random_model
from tests.unit.model.training.conftest import Train
from tests.unit.model.training.test_invariance import losses

pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that four bits round visibly."""
    folder = tmp_path_factory.mktemp("four") / "base"
    tokenizer = byte_tokenizer()
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    random_model("llama", 64, 0, vocab_size=len(tokenizer), initializer_range=0.2, **ends).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.arange(4, 40)[None]).logits.float()
    return found


def test_what_four_bits_learnt_is_exported_on_the_base_that_they_saw(fit: Train, base: Path, tmp_path: Path) -> None:
    changes = {"model": str(base), "method": "qlora", "steps": 8, "learning_rate": 2e-2}
    outcome, folder = fit(**changes)
    adapter = folder / "artifacts" / "adapter"
    assert losses(folder)[-1] < losses(folder)[0]
    assert read_table(adapter / FOUR_BITS) == {"dtype": "float32"}
    assert outcome["precision"] == "float32"

    loading = {"quantization_config": four_bits(torch.float32), "device_map": {"": "cpu"}, "dtype": torch.float32}
    narrow = AutoModelForCausalLM.from_pretrained(base, **loading)
    for module in narrow.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # its kernel rounds to half precision
    live = logits(PeftModel.from_pretrained(narrow, adapter))
    trained = load_trained(base, adapter)
    torch.testing.assert_close(logits(trained.model), live, atol=1e-4, rtol=1e-4)
    save_merged(trained, tmp_path / "merged", "float32")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), live, atol=1e-4, rtol=1e-4)
    # On the original base the same adapter is another model: the trap.
    (adapter / FOUR_BITS).unlink()
    assert (logits(load_trained(base, adapter).model) - live).abs().max() > 0.1


def test_an_evaluation_changes_no_gradient(fit: Train, base: Path, rows: Path) -> None:
    changes = {"model": str(base), "method": "qlora", "steps": 4, "learning_rate": 2e-2, "save_every": 4}
    _, plain = fit("plain", **changes)
    _, watched = fit("watched", **changes, evaluate_every=1, data={"validation": str(rows)})
    assert losses(watched) == losses(plain)


def test_four_bits_need_their_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(Unavailable, match=r"QLoRA needs bitsandbytes: .*pagoda-llm\[quantize\]"):
        four_bits(torch.float32)
