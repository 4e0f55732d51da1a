"""Compiling a model's layers: each in place, so that equal layers share one code. Not the model as a whole.

A model of 32 equal layers compiled as a whole is 32 times the work, and takes minutes; one layer takes seconds
(PyTorch's "regional compilation"). In place, names of weights and whatever hooks a layer (FSDP2) stay.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from pagoda.core.errors import InvalidRequest

_CODES = 64
"""Of one layer: with and without gradients, of fixed and of any length, above frozen weights and above learnt ones."""


def compile_layers(model: Any, *, whole: bool = True) -> int:
    """Have each layer compiled at its first use; gives their number. ``whole``: as one graph each, or refused then.

    Raises ``InvalidRequest`` for a family whose layers are not known.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise InvalidRequest(
            f"Which layers a {model.config.model_type} repeats is not known, so none is compiled; set compile=false.",
            param="compile",
        )
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _CODES)
    for layer in layers:
        layer.compile(fullgraph=whole)
    return len(layers)
