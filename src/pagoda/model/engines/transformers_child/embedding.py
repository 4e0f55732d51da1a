"""Embeddings with the model itself: one padded forward pass, pooling as the checkpoint says, unit length.

The layout of sentence-transformers is read (``modules.json``, ``1_Pooling``, ``2_Dense``); a checkpoint without it is
averaged over its tokens. Nothing is ever cut: a text that does not fit is refused above.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pagoda.core.errors import Unavailable
from pagoda.model.engines.gathering import Wanted

_LARGEST_BATCH = 32
_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"Identity": lambda x: x, "Tanh": torch.tanh}


class Embedder:
    """Turns token ids into vectors; not thread-safe, its caller takes turns."""

    def __init__(self, model: Any, path: Path, pad: int) -> None:
        self._model = model
        self._pad = pad
        self._pooling = "mean"
        self._dense: list[tuple[torch.Tensor, torch.Tensor | None, Callable[[torch.Tensor], torch.Tensor]]] = []
        for module in _json(path / "modules.json") or ():
            self._add(module["type"].rsplit(".", 1)[-1], path / module["path"])

    def _add(self, kind: str, folder: Path) -> None:
        if kind == "Pooling":
            modes = [name for name, on in _json(folder / "config.json").items() if name.startswith("pooling_") and on]
            known = {"mean_tokens": "mean", "cls_token": "first", "lasttoken": "last"}
            wanted = [name.removeprefix("pooling_mode_") for name in modes]
            if len(wanted) != 1 or wanted[0] not in known:
                raise Unavailable(f"its pooling {', '.join(wanted)} is not supported", retryable=False)
            self._pooling = known[wanted[0]]
        elif kind == "Dense":
            activation = str(_json(folder / "config.json").get("activation_function", "Identity")).rsplit(".", 1)[-1]
            if activation not in _ACTIVATIONS:
                raise Unavailable(f"its layer's activation {activation} is not supported", retryable=False)
            weights = load_file(folder / "model.safetensors")
            place = {"device": self._model.device, "dtype": self._model.dtype}
            bias = weights.get("linear.bias")
            self._dense.append(
                (
                    weights["linear.weight"].to(**place),
                    None if bias is None else bias.to(**place),
                    _ACTIVATIONS[activation],
                )
            )
        elif kind not in ("Transformer", "Normalize"):
            raise Unavailable(f"its module {kind} is not supported", retryable=False)

    @torch.inference_mode()
    def embed(self, inputs: Sequence[Sequence[int]], wanted: Wanted = lambda: True) -> list[bytes]:
        """A unit vector for each input, as little-endian single precision. Ends once none is wanted."""
        vectors: list[bytes] = [b""] * len(inputs)
        order = sorted(range(len(inputs)), key=lambda at: len(inputs[at]))  # little padding
        for start in range(0, len(order), _LARGEST_BATCH):
            if not wanted():
                break
            places = order[start : start + _LARGEST_BATCH]
            rows = self._forward([inputs[at] for at in places]).float().cpu().numpy().astype("<f4")
            for at, row in zip(places, rows, strict=True):
                vectors[at] = row.tobytes()
        return vectors

    def _forward(self, inputs: Sequence[Sequence[int]]) -> torch.Tensor:
        width = max(map(len, inputs))
        device = self._model.device
        ids = torch.tensor([[*item, *[self._pad] * (width - len(item))] for item in inputs], device=device)
        mask = torch.tensor([[1] * len(item) + [0] * (width - len(item)) for item in inputs], device=device)
        states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state  # [rows, width, hidden]
        if self._pooling == "first":
            pooled = states[:, 0]
        elif self._pooling == "last":
            pooled = states[torch.arange(len(inputs), device=device), mask.sum(dim=1) - 1]
        else:
            weights = mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1e-9)
        for weight, bias, activation in self._dense:
            pooled = activation(torch.nn.functional.linear(pooled, weight, bias))
        return torch.nn.functional.normalize(pooled.float(), dim=-1)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
