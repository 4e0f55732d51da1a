"""Named forms of a GGUF file (``Q4_K_M`` and so on): which type each tensor gets, after llama.cpp's rules.

A form is a mixture: norms and biases stay single, the tensor that turns states into tokens is kept finer, and the
``_M`` forms of the K family keep some of ``attn_v`` and ``ffn_down`` finer. Where a row does not divide into a
K-quant's blocks of 256 (SmolLM2-135M's 576 do not), the next plain type stands in, as in llama.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass

import gguf
from gguf import GGMLQuantizationType as Kind

from pagoda.core.errors import InvalidRequest
from pagoda.model.quantize.blocks import fits

_STAND_INS = {
    Kind.Q4_K: Kind.Q5_0,
    Kind.Q5_K: Kind.Q5_1,
    Kind.Q6_K: Kind.Q8_0,
}
_SENSITIVE = ("attn_v.weight", "ffn_down.weight")


@dataclass(frozen=True, slots=True)
class Form:
    """A named mixture: the type of most matrices, of the finer ones, and llama.cpp's number for the file type."""

    name: str
    kind: Kind
    finer: Kind
    file_type: int
    mixed: bool = False
    """Whether some layers' values and down projections get the finer type (the ``_M`` forms)."""


def _form(name: str, kind: Kind, finer: Kind, *, mixed: bool = False) -> Form:
    label = f"MOSTLY_{name}" if name != "F32" else "ALL_F32"
    return Form(name, kind, finer, int(gguf.LlamaFileType[label]), mixed)


FORMS = {
    form.name: form
    for form in (
        _form("F32", Kind.F32, Kind.F32),
        _form("F16", Kind.F16, Kind.F16),
        _form("BF16", Kind.BF16, Kind.BF16),
        _form("Q8_0", Kind.Q8_0, Kind.Q8_0),
        _form("Q6_K", Kind.Q6_K, Kind.Q6_K),
        _form("Q5_K_M", Kind.Q5_K, Kind.Q6_K, mixed=True),
        _form("Q5_1", Kind.Q5_1, Kind.Q6_K),
        _form("Q5_0", Kind.Q5_0, Kind.Q6_K),
        _form("Q4_K_M", Kind.Q4_K, Kind.Q6_K, mixed=True),
        _form("Q4_1", Kind.Q4_1, Kind.Q6_K),
        _form("Q4_0", Kind.Q4_0, Kind.Q6_K),
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
    ends = name == "output.weight" or (tied and name == "token_embd.weight")
    sensitive = form.mixed and name.endswith(_SENSITIVE) and _is_sensitive(int(name.split(".")[1]), layers)
    kind = form.finer if ends or sensitive else form.kind
    return kind if fits(shape[-1], kind) else _stand_in(kind, shape[-1])


def _is_sensitive(layer: int, layers: int) -> bool:
    """llama.cpp's choice: the first and last eighth of the layers, and every third between."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _stand_in(kind: Kind, width: int) -> Kind:
    other = _STAND_INS.get(kind, Kind.F16)
    return other if fits(width, other) else Kind.F16
