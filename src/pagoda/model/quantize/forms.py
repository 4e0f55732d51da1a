"""Named forms of a GGUF file (``Q4_K_M`` and so on): which type each tensor gets, after llama.cpp's rules.

A form is a mixture: norms and biases stay single, the tensor that turns states into tokens is kept finer, and the
forms of the K family keep some of the values, of what attention gives, and of ``ffn_down`` finer. Where a row does not
divide into a K-quant's blocks of 256 (SmolLM2-135M's 576 do not), the next plain type stands in, as in llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gguf
from gguf import GGMLQuantizationType as Kind

from pagoda.core.errors import InvalidRequest
from pagoda.model.quantize.blocks import fits

_STAND_INS = {
    Kind.Q2_K: Kind.Q4_0,
    Kind.Q3_K: Kind.Q4_0,
    Kind.Q4_K: Kind.Q5_0,
    Kind.Q5_K: Kind.Q5_1,
    Kind.Q6_K: Kind.Q8_0,
}
_VALUES, _GIVEN, _DOWN = ("attn_v.weight", "attn_qkv.weight"), ("attn_output.weight",), ("ffn_down.weight",)


@dataclass(frozen=True, slots=True)
class Finer:
    """Tensors that a form keeps finer: those whose names end so, in these layers (their number, of how many)."""

    ends: tuple[str, ...]
    kind: Kind
    where: Callable[[int, int], bool] = lambda layer, layers: True
    shared: bool = False
    """Only values that four heads or more share, which are few."""


@dataclass(frozen=True, slots=True)
class Form:
    """A named mixture: the type of most matrices, of the one that turns states into tokens, llama.cpp's number for the
    file type, and what else is kept finer: the first that fits counts."""

    name: str
    kind: Kind
    head: Kind
    file_type: int
    finer: tuple[Finer, ...] = ()


def _some(layer: int, layers: int) -> bool:
    """llama.cpp's choice of the ``_M`` forms: the first and last eighth of the layers, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _form(name: str, kind: Kind, head: Kind, *finer: Finer) -> Form:
    label = f"MOSTLY_{name}" if name != "F32" else "ALL_F32"
    return Form(name, kind, head, int(gguf.LlamaFileType[label]), finer)


_SOME = (Finer((*_VALUES, *_DOWN), Kind.Q6_K, _some),)
_OF_Q4_K_S = (
    Finer(_VALUES, Kind.Q5_K, lambda layer, _: layer < 4),
    Finer(_DOWN, Kind.Q5_K, lambda layer, layers: layer < layers // 8),
)
_OF_Q3_K_M = (
    Finer(_VALUES, Kind.Q5_K, lambda layer, _: layer < 2),
    Finer(_DOWN, Kind.Q5_K, lambda layer, layers: layer < layers // 16),
    Finer((*_VALUES, *_GIVEN, *_DOWN), Kind.Q4_K),
)
_OF_Q2_K = (
    Finer(_VALUES, Kind.Q4_K, shared=True),
    Finer((*_VALUES, *_GIVEN, *_DOWN), Kind.Q3_K),
)

FORMS = {
    form.name: form
    for form in (
        _form("F32", Kind.F32, Kind.F32),
        _form("F16", Kind.F16, Kind.F16),
        _form("BF16", Kind.BF16, Kind.BF16),
        _form("Q8_0", Kind.Q8_0, Kind.Q8_0),
        _form("Q6_K", Kind.Q6_K, Kind.Q6_K),
        _form("Q5_K_M", Kind.Q5_K, Kind.Q6_K, *_SOME),
        _form("Q5_K_S", Kind.Q5_K, Kind.Q6_K),
        _form("Q5_1", Kind.Q5_1, Kind.Q6_K),
        _form("Q5_0", Kind.Q5_0, Kind.Q6_K),
        _form("Q4_K_M", Kind.Q4_K, Kind.Q6_K, *_SOME),
        _form("Q4_K_S", Kind.Q4_K, Kind.Q6_K, *_OF_Q4_K_S),
        _form("Q4_1", Kind.Q4_1, Kind.Q6_K),
        _form("Q4_0", Kind.Q4_0, Kind.Q6_K),
        _form("Q3_K_L", Kind.Q3_K, Kind.Q6_K, Finer((*_VALUES, *_GIVEN, *_DOWN), Kind.Q5_K)),
        _form("Q3_K_M", Kind.Q3_K, Kind.Q6_K, *_OF_Q3_K_M),
        _form("Q3_K_S", Kind.Q3_K, Kind.Q6_K),
        _form("Q2_K", Kind.Q2_K, Kind.Q6_K, *_OF_Q2_K),
    )
}
"""Largest first."""


def find_form(name: str) -> Form:
    """The form of that name, in any case; ``InvalidRequest`` names those there are."""
    if found := FORMS.get(name.upper()):
        return found
    message = f"There is no GGUF form {name!r}; there are {', '.join(FORMS)}."
    raise InvalidRequest(message, param="form")


def type_of(form: Form, name: str, shape: tuple[int, ...], layers: int, *, tied: bool) -> Kind:
    """The type of the GGUF tensor ``name`` of ``shape`` (rows, width) in a model of so many layers."""
    if len(shape) != 2 or "norm" in name or name.startswith(("position_embd", "token_types")):
        return Kind.F32
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        kind = form.head
    elif name.startswith("blk."):
        kind = next((each.kind for each in form.finer if _keeps(each, name, shape, layers)), form.kind)
    else:
        kind = form.kind
    return kind if fits(shape[-1], kind) else _stand_in(kind, shape[-1])


def _keeps(finer: Finer, name: str, shape: tuple[int, ...], layers: int) -> bool:
    if finer.shared and shape[0] * 4 > shape[1]:
        return False
    return name.endswith(finer.ends) and finer.where(int(name.split(".")[1]), layers)


def _stand_in(kind: Kind, width: int) -> Kind:
    other = _STAND_INS.get(kind, Kind.F16)
    return other if fits(width, other) else Kind.F16
