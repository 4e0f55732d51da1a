"""Builds a Hugging Face checkpoint from a GGUF file with transformers: the same model, tokenizer and chat template.

The weights are written in single precision: a 4-bit block is a scale times a small number plus an offset, and half
precision would round that again (measured on SmolLM2: log-probabilities move by up to 0.02 in float16, 0.12 in
bfloat16).
"""

from __future__ import annotations

from pathlib import Path

from pagoda.core.errors import Unavailable
from pagoda.core.ports import Progress
from pagoda.model.catalog.gguf_header import read_gguf_header
from pagoda.model.catalog.recipes.safetensors import broken
from pagoda.model.catalog.recipes.writing import disk_fault


def build(origin: Path, target: Path, progress: Progress) -> None:
    """Write the folder ``target`` from the GGUF file in the folder ``origin``."""
    files = sorted(origin.glob("*.gguf"))
    if len(files) != 1:
        raise broken(origin, f"it holds {len(files)} GGUF files instead of one")
    header = read_gguf_header(files[0], "fetch it again")
    try:
        import torch
        from safetensors import SafetensorError  # noqa: PLC0415  (transformers brings it along)
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    except ImportError as error:
        raise Unavailable(
            f"Building a checkpoint needs {error.name}, which this install does not have: run "
            "`pip install 'pagoda-llm[train]'`.",
            code="not_installed",
            retryable=False,
        ) from error
    progress("read", 0, None)
    place = {"gguf_file": files[0].name, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(origin, **place)
        model = AutoModelForCausalLM.from_pretrained(origin, dtype=torch.float32, **place)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise broken(files[0], f"transformers cannot read it ({str(error).splitlines()[0]})") from error
    model.hf_quantizer = None  # the weights are plain by now; with it the model refuses to be saved
    model.is_quantized = False
    del model.config.quantization_config
    ends = tokenizer.eos_token_id
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id, **header.sampling
    )
    model.generation_config.do_sample = bool(header.sampling)
    progress("write", 0, None)
    try:
        model.save_pretrained(target)
    except SafetensorError as error:
        raise disk_fault(error, target) from error
    tokenizer.save_pretrained(target)
