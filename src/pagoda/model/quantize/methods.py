"""Quantisation inside torch: made, saved as safetensors, and loaded again from what was saved.

A method makes the smaller model from a checkpoint's folder, writes it to a folder of its own, and loads that. What does
not load to the same numbers is no result. A model is written before it is first asked: bitsandbytes repacks 4-bit
weights for the CPU at their first use, and what is saved after that loads as another model. No pickle is written.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pagoda.core.errors import InvalidRequest, Unavailable
from pagoda.model.export.folder import FLOATS, form_of

_DYNAMIC_FILE = "dynamic-int8.safetensors"
_DYNAMIC_NOTE = "quantised.json"


@dataclass(frozen=True, slots=True)
class Method:
    """A way to make a model smaller: ``make`` from a checkpoint's folder, ``write`` to another, ``load`` from that."""

    name: str
    make: Callable[[Path], Any]
    load: Callable[[Path], Any]
    package: str = ""
    """What it needs beside torch and transformers."""
    write: Callable[[Any, Path], None] = lambda model, folder: model.save_pretrained(folder)


def load_in(form: str, folder: Path) -> Any:
    """A checkpoint's model that computes in the one of ``FLOATS``."""
    import torch

    return _load_plain(folder, getattr(torch, FLOATS[form]))


def _load_plain(folder: Path, dtype: Any, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM

    options |= {"local_files_only": True, "use_safetensors": True}
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options).eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's notice that this way will go: it is measured here as long as it is there."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
        yield


def _dynamic(model: Any) -> Any:
    import torch

    with _quiet():
        quantise: Any = torch.ao.quantization.quantize_dynamic
        return quantise(model, {torch.nn.Linear}, dtype=torch.qint8)


def _make_dynamic(source: Path) -> Any:
    import torch

    return _dynamic(_load_plain(source, torch.float32))


def _write_dynamic(model: Any, folder: Path) -> None:
    """Integers, scales and the rest apart: ``save_pretrained`` fails on packed weights."""
    from safetensors.torch import save_file  # noqa: PLC0415  (transformers brings it along)

    tensors: dict[str, Any] = {}
    scales: dict[str, list[float]] = {}
    for name, module in model.named_modules():
        if _is_packed(module):
            weight, bias = module._weight_bias()
            tensors[f"{name}.weight"] = weight.int_repr()
            scales[name] = [float(weight.q_scale()), int(weight.q_zero_point())]
            if bias is not None:
                tensors[f"{name}.bias"] = bias.detach().clone()
    packed = tuple(f"{name}." for name in scales)
    for name, value in model.state_dict().items():
        if not name.startswith(packed):
            tensors[name] = value.detach().clone().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / _DYNAMIC_FILE)
    (folder / _DYNAMIC_NOTE).write_text(json.dumps({"method": "int8-dynamic", "scales": scales}), encoding="utf-8")
    model.config.save_pretrained(folder)


def _load_dynamic(folder: Path) -> Any:
    import torch
    from safetensors.torch import load_file  # noqa: PLC0415
    from transformers import AutoConfig, AutoModelForCausalLM

    note: Mapping[str, Any] = json.loads((folder / _DYNAMIC_NOTE).read_text(encoding="utf-8"))
    tensors = load_file(folder / _DYNAMIC_FILE)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    model = _dynamic(AutoModelForCausalLM.from_config(config).eval())
    for name, (scale, zero) in note["scales"].items():
        with _quiet():
            weight = torch._make_per_tensor_quantized_tensor(tensors.pop(f"{name}.weight"), scale, int(zero))
        model.get_submodule(name).set_weight_bias(weight, tensors.pop(f"{name}.bias", None))
    packed = tuple(f"{name}." for name in note["scales"])
    wanted = {name: value for name, value in model.state_dict().items() if not name.startswith(packed)}
    if strange := sorted(wanted.keys() ^ tensors.keys()):
        raise InvalidRequest(f"{folder} does not hold its model: {strange[0]} is out of place.")
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(tensors[name])
    return model


def _is_packed(module: Any) -> bool:
    return hasattr(module, "_weight_bias") and hasattr(module, "set_weight_bias")


def share_quantised(model: Any) -> tuple[float, int]:
    """The share of a torch model's numbers that are held in 8 bits or fewer, and the bytes that all of them take.

    ``Conv1D`` (GPT-2) is no ``Linear``: dynamic quantisation passes it by, and this shows it.
    """
    small = total = size = 0
    seen: set[int] = set()
    for module in model.modules():
        if _is_packed(module):
            weight, bias = module._weight_bias()
            small += weight.numel()
            total += weight.numel()
            size += weight.numel() + (0 if bias is None else bias.numel() * bias.element_size())
            continue
        for parameter in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if parameter.data_ptr() in seen or not parameter.numel():
                continue
            seen.add(parameter.data_ptr())
            count, held = _numbers(parameter)
            total += count
            size += held
            small += count if held * 8 <= count * 9 else 0
    return small / max(total, 1), size


def _numbers(parameter: Any) -> tuple[int, int]:
    """How many numbers a tensor stands for, and the bytes it takes; a packed 4-bit one holds two in a byte."""
    state = getattr(parameter, "quant_state", None)
    held = parameter.numel() * parameter.element_size()
    if state is not None:
        count = 1
        for side in state.shape:
            count *= side
        return count, held
    return parameter.numel(), held


def _make_bitsandbytes(bits: int) -> Callable[[Path], Any]:
    """What is left as it was (embeddings, norms) keeps the checkpoint's precision."""

    def make(source: Path) -> Any:
        import torch
        from transformers import BitsAndBytesConfig

        dtype = getattr(torch, FLOATS[form_of(source)])
        wanted = (
            BitsAndBytesConfig(load_in_8bit=True)
            if bits == 8
            else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        )
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of each matrix that it casts
        return _load_plain(source, dtype, quantization_config=wanted, device_map="cpu")

    return make


def _load_bitsandbytes(folder: Path) -> Any:
    return _load_plain(folder, "auto", device_map="cpu")


METHODS = {
    method.name: method
    for method in (
        Method("fp16", partial(load_in, "F16"), partial(load_in, "F16")),
        Method("bf16", partial(load_in, "BF16"), partial(load_in, "BF16")),
        Method("int8-dynamic", _make_dynamic, _load_dynamic, write=_write_dynamic),
        Method("int8", _make_bitsandbytes(8), _load_bitsandbytes, "bitsandbytes"),
        Method("int4", _make_bitsandbytes(4), _load_bitsandbytes, "bitsandbytes"),
    )
}


def find_method(name: str) -> Method:
    """The method of that name. Raises ``InvalidRequest`` naming those there are, ``Unavailable`` what to install."""
    from importlib.util import find_spec  # noqa: PLC0415

    if name not in METHODS:
        raise InvalidRequest(f"There is no method {name!r}; there are {', '.join(METHODS)}.", param="form")
    method = METHODS[name]
    if method.package and find_spec(method.package) is None:
        raise Unavailable(
            f"{name} needs {method.package}, which is not installed: run `pip install 'pagoda-llm[quantize]'`.",
            code="not_installed",
            retryable=False,
        )
    return method
