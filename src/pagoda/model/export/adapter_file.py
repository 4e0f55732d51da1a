"""Writes a PEFT LoRA adapter as the GGUF file that llama.cpp loads beside its base, checked against that base.

The factor of each module (alpha over rank, over its root for rsLoRA, by pattern) is folded into its B matrix, so that
the file's own scale is one. llama.cpp has no form for DoRA, biases and modules trained whole; they are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from pagoda.core.errors import InvalidRequest
from pagoda.model.catalog.disk import place, stored
from pagoda.model.catalog.entry import ADAPTER_FILES
from pagoda.model.catalog.recipes.safetensors import broken, read_tensors
from pagoda.model.catalog.recipes.writing import write_out
from pagoda.model.export.architecture import FAMILIES, Family
from pagoda.model.export.folder import read_table

PAIR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
"""How PEFT names the two matrices of a module."""


@dataclass(frozen=True, slots=True)
class _Base:
    """What matters of the base's file."""

    family: Family
    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    """(rows, width) of each tensor."""


def write_adapter(folder: Path, base: Path, target: Path) -> None:
    """Write the adapter in ``folder`` for the GGUF file ``base`` to ``target``, whole or not at all.

    Raises ``InvalidRequest`` naming what does not fit or has no form, ``StoreError`` for broken files and full disks.
    """
    config, tensors = _read(folder)
    found = _read_base(base)
    pairs = _pairs(folder, tensors)
    draft = target.with_name(f".{target.name}.draft")
    with stored(f"The adapter {folder.name}", target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        writer = gguf.GGUFWriter(draft, found.family.name)
        try:
            writer.add_type("adapter")
            writer.add_string("adapter.type", "lora")
            writer.add_float32("adapter.lora.alpha", 1.0)  # divided by the rank, which is folded in below
            for module, (down, up) in pairs.items():
                name, up_rows = found.family.adapted(module, up, found.config)
                _check_fit(folder, module, found.shapes.get(name), down, up)
                factor = _factor(config, module, len(down)) * len(down)
                writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(down, np.float32))
                writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(up_rows * factor, np.float32))
            write_out(writer)
            place(draft, target)
        finally:
            draft.unlink(missing_ok=True)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    for needed in ADAPTER_FILES:
        if not (folder / needed).is_file():
            raise InvalidRequest(
                f"{folder} is no adapter: it has no {needed} (a pickle is never loaded).", param="model"
            )
    config = read_table(folder / ADAPTER_FILES[0])
    if config.get("peft_type") != "LORA":
        raise InvalidRequest(f"{folder} is {config.get('peft_type')}; llama.cpp adapters are LoRA only.", param="model")
    for key, plain in (("use_dora", False), ("bias", "none"), ("modules_to_save", None), ("lora_bias", False)):
        if (value := config.get(key)) and value != plain:
            raise InvalidRequest(
                f"The adapter in {folder} has {key}, which llama.cpp has no form for; merge it with `pagoda export`.",
                param="model",
            )
    return config, read_tensors(folder / ADAPTER_FILES[1])


def _pairs(folder: Path, tensors: Mapping[str, NDArray[Any]]) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """The A (rank, inputs) and B (outputs, rank) matrix of each module."""
    sides: dict[str, dict[str, NDArray[Any]]] = {}
    for key, values in tensors.items():
        match = PAIR.fullmatch(key)
        if match is None or match["module"].endswith(("lm_head", "embed_tokens", "wte")):
            raise InvalidRequest(
                f"The adapter in {folder} changes {key}, which llama.cpp cannot add at run time; merge it with "
                "`pagoda export`.",
                param="model",
            )
        sides.setdefault(match["module"], {})[match["side"]] = values
    if broken_pair := [module for module, both in sides.items() if len(both) != 2]:
        raise broken(folder / ADAPTER_FILES[1], f"it has half a pair of {broken_pair[0]}")
    return {module: (both["A"], both["B"]) for module, both in sides.items()}


def _factor(config: Mapping[str, Any], module: str, rank: int) -> float:
    """PEFT's scaling of a module: patterns name it by the end of its path."""
    alpha = float(config["lora_alpha"])
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = float(value)
            break
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _read_base(base: Path) -> _Base:
    reader = gguf.GGUFReader(base)

    def field(name: str) -> Any:
        found = reader.get_field(name)
        return None if found is None else found.contents()

    name = str(field("general.architecture"))
    family = next((family for family in FAMILIES.values() if family.name == name), None)
    if family is None:
        there = ", ".join(family.name for family in FAMILIES.values())
        raise InvalidRequest(
            f"Adapters are written for {there}, and {base.name} is {name}; merge it with `pagoda export`.",
            param="model",
        )
    heads = field(f"{name}.attention.head_count")
    config = {"num_attention_heads": heads, "num_key_value_heads": field(f"{name}.attention.head_count_kv") or heads}
    shapes = {tensor.name: tuple(int(side) for side in reversed(tensor.shape)) for tensor in reader.tensors}
    return _Base(family, config, shapes)


def _check_fit(folder: Path, module: str, shape: tuple[int, ...] | None, down: NDArray[Any], up: NDArray[Any]) -> None:
    if shape is None or (len(up), down.shape[1]) != shape:
        wanted = "has no such tensor" if shape is None else f"has {shape[0]} by {shape[1]} there"
        raise InvalidRequest(
            f"The adapter in {folder} does not fit its base model: its {module} is {len(up)} by {down.shape[1]}, and "
            f"the base {wanted}.",
            param="model",
        )
