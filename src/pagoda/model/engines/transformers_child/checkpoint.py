"""A checkpoint on disk: what is refused before anything is loaded, and loading it with transformers.

Nothing here runs a pickle: weights come as safetensors or not at all, and code that a checkpoint brings with it is
run only for a model whose entry says so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from pagoda.core.errors import StoreError, Unavailable


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model with its tokenizer."""

    model: Any
    tokenizer: Any
    path: Path


def resolve_device(wanted: str, key: str = "engines.device") -> str:
    """``auto`` as what is there; raises ``Unavailable`` when CUDA is asked for (by ``key``) and absent."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise Unavailable(
            f"{key} is cuda, but torch sees no CUDA device; install a CUDA build of torch or set it to cpu",
            retryable=False,
        )
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def resolve_dtype(wanted: str, device: str) -> torch.dtype:
    """``auto``: single precision on a CPU, where half is slow and answers shift with the batch; bfloat16 on a GPU."""
    if wanted == "auto":
        return torch.float32 if device == "cpu" else torch.bfloat16
    dtype: torch.dtype = getattr(torch, wanted)
    return dtype


def load_checkpoint(
    path: Path,
    *,
    embeds: bool,
    device: str,
    dtype: torch.dtype,
    trust: bool,
    labels: Sequence[str] = (),
    **loading: Any,
) -> Checkpoint:
    """Load model and tokenizer. Raises ``StoreError`` or ``Unavailable`` with the reason in a sentence's part.

    With ``labels`` the model has a head that tells these apart, new where the checkpoint has none. ``loading`` goes to
    transformers.
    """
    _check(path, trust, writes=not embeds and not labels)
    auto = AutoModel if embeds else AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=trust)
        if labels:
            config.id2label = dict(enumerate(labels))
            config.label2id = {label: place for place, label in enumerate(labels)}
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=trust)
        model, report = auto.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=trust,
            output_loading_info=True,
            **loading,
        )
    except SafetensorError as error:
        raise StoreError(f"its safetensors weights are corrupt ({error})", code="broken_file") from error
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError, AttributeError) as error:
        raise Unavailable(_first_line(error), retryable=False) from error
    if not tokenizer.is_fast:
        raise Unavailable("its tokenizer has no tokenizer.json; only those are read", retryable=False)
    missing = sorted(report["missing_keys"])
    spared = ("pooler",) if embeds else ("score", "classifier") if labels else ()
    if not all(any(part in name for part in spared) for name in missing):
        raise StoreError(f"its weights lack {missing[0]} ({len(missing)} tensors are missing)", code="broken_file")
    placed = model if "device_map" in loading else model.to(device)
    return Checkpoint(placed.eval(), tokenizer, path)


def _check(path: Path, trust: bool, *, writes: bool) -> None:
    """Refuse by name what would otherwise fail in many ways, or run code."""
    if not (path / "config.json").is_file():
        raise StoreError(f"{path} holds no config.json and so no checkpoint", code="broken_file")
    if not any(path.glob("*.safetensors")):
        pickles = sorted(item.name for item in path.iterdir() if item.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        why = f"only pickles ({pickles[0]}), which Pagoda never loads" if pickles else "no safetensors weights"
        raise StoreError(f"{path} holds {why}", code="broken_file")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path / 'config.json'} is not JSON ({error})", code="broken_file") from error
    built = next(iter(config.get("architectures") or ()), "")
    if writes and built.endswith("Classification"):  # the loader would drop its head, and find the rest to be whole
        raise StoreError(f"it is a classifier ({built}), which tells labels and writes no text", code="classifier")
    kind = config.get("model_type", "")
    if kind not in CONFIG_MAPPING and not trust:
        own = "brings its own Python code" if "auto_map" in config else "is unknown to the installed transformers"
        raise Unavailable(
            f"its model type {kind!r} {own}; Pagoda runs a checkpoint's code only when trust_remote_code is true in "
            "the model's entry",
            code="untrusted_code",
            retryable=False,
        )


def _first_line(error: Exception) -> str:
    text = (str(error) or type(error).__name__).strip()
    return " ".join(text.split())[:400].rstrip(".")
