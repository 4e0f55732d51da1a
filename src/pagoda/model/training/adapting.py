"""The model that is trained: found, loaded, and made ready for full training, LoRA or QLoRA. Not the training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as FAMILIES
from transformers.pytorch_utils import Conv1D

from pagoda.core.errors import InvalidRequest, NotFound, StoreError, Unavailable
from pagoda.model.engines.transformers_child.checkpoint import Checkpoint, load_checkpoint, resolve_device
from pagoda.model.training.recipe import Recipe

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Hardware:
    """What is computed on and how."""

    device: str
    precision: torch.dtype
    """Of the computation; trained weights are float32."""


def choose_hardware(recipe: Recipe) -> Hardware:
    """The recipe's wishes as what is there. Raises ``Unavailable`` for a GPU that is not."""
    try:
        device = resolve_device(recipe.device, "device")
    except Unavailable as error:
        raise Unavailable(f"The recipe's {error.message}.", code="no_gpu", retryable=False) from error
    if recipe.precision == "auto":
        return Hardware(device, torch.bfloat16 if device == "cuda" else torch.float32)
    precision = _PRECISIONS[recipe.precision]
    if device == "cpu" and precision is torch.float16:
        raise InvalidRequest("precision is float16, which a CPU cannot train in; use float32 or bfloat16.")
    return Hardware(device, precision)


def load_base(path: Path, recipe: Recipe, hardware: Hardware, labels: Sequence[str]) -> Checkpoint:
    """The checkpoint with its tokenizer, padded on the right by a token that it has."""
    loading: dict[str, Any] = {} if recipe.attention == "auto" else {"attn_implementation": recipe.attention}
    if recipe.method == "qlora":
        place = torch.cuda.current_device() if hardware.device == "cuda" else hardware.device
        loading |= {"quantization_config": four_bits(hardware.precision), "device_map": {"": place}}
    dtype = torch.float32 if recipe.method == "full" else hardware.precision
    if not path.is_dir():
        raise NotFound(f"There is no folder {path}.", param="model")
    try:
        found = load_checkpoint(
            path, embeds=False, device=hardware.device, dtype=dtype, trust=False, labels=tuple(labels), **loading
        )
    except (StoreError, Unavailable) as error:  # whose message is a part of a sentence
        raise StoreError(f"The model in {path} cannot be trained: {error.message}.", code=error.code) from error
    if recipe.method == "qlora":
        _keep_slopes(found.model)
    tokenizer, config = found.tokenizer, found.model.config
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise InvalidRequest("The tokenizer has neither a padding nor an end-of-text token.", param="model")
    config.pad_token_id = tokenizer.pad_token_id
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and recipe.max_length > longest:
        raise InvalidRequest(
            f"max_length is {recipe.max_length}, but the model's context holds {longest} tokens.", param="max_length"
        )
    config.use_cache = False
    return found


def adapt(model: Any, recipe: Recipe, precision: torch.dtype) -> Any:
    """The model with adapters in it; as it is for full training. ``precision`` is that of the computation."""
    if recipe.method == "full":
        return model
    if recipe.method == "qlora":
        model = peft.prepare_model_for_kbit_training(  # type: ignore[no-untyped-call]
            model, use_gradient_checkpointing=recipe.checkpointing
        )
    wanted = peft.LoraConfig(
        # Without its task the head of a classification would neither be trained nor saved.
        task_type="SEQ_CLS" if recipe.task == "classification" else "CAUSAL_LM",
        r=recipe.lora.rank,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        use_rslora=recipe.lora.rslora,
        use_dora=recipe.lora.dora,
        target_modules=_targets(model, recipe),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    with warnings.catch_warnings():  # PEFT asks the model by a name that transformers has just deprecated
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        adapted = peft.get_peft_model(model, wanted)
    if precision is not torch.float32:
        # Adapters are learnt in single precision, and PEFT gives them inputs of that, which mixed precision takes back
        # to half at once: twice the traffic of each layer's inputs, for the same numbers.
        for module in adapted.modules():
            if isinstance(module, LoraLayer):
                module.cast_input_dtype_enabled = False
    return adapted


def _targets(model: Any, recipe: Recipe) -> str | list[str]:
    wanted = recipe.lora.targets
    if wanted == "all-linear":
        return "all-linear"
    if wanted == "attention":
        family = model.config.model_type
        if family not in FAMILIES:
            raise InvalidRequest(
                f"Which layers are the attention's is not known for {family}; name them in lora.targets.",
                param="lora.targets",
            )
        return list(FAMILIES[family])
    layers = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding | Conv1D)
    }
    if unknown := sorted(set(wanted) - layers):
        raise InvalidRequest(
            f"The model has no layer {unknown[0]!r} to adapt; it has {', '.join(sorted(layers))}.", param="lora.targets"
        )
    tied = getattr(model.config, "tie_word_embeddings", False)
    if tied and {"lm_head", "embed_tokens", "wte"} & set(wanted):
        raise InvalidRequest(
            "The model's output shares its weights with the input embedding: an adapter on one would change both "
            "when it is merged. Leave both out of lora.targets.",
            param="lora.targets",
        )
    return list(wanted)


def four_bits(precision: torch.dtype) -> Any:
    """How QLoRA's base is loaded (Dettmers et al., 2023), to be computed with in ``precision``.

    Raises ``Unavailable`` without bitsandbytes.
    """
    try:
        import bitsandbytes  # noqa: F401, PLC0415  (an extra)
    except ImportError as error:
        raise Unavailable(
            "QLoRA needs bitsandbytes: python -m pip install 'pagoda-llm[quantize]'.",
            code="not_installed",
            retryable=False,
        ) from error
    from transformers import BitsAndBytesConfig  # noqa: PLC0415

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=precision,
    )


def _keep_slopes(model: Any) -> None:
    """On a CPU with AVX512-BF16 bitsandbytes packs the weights at the first evaluation for a kernel without a way back:
    the training after it learns from wrong gradients. It is not to pack them."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
