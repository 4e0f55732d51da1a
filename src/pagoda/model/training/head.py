"""A model's head while it is trained: the summed cross entropy in the place of logits. Not what is learnt beneath it.

A table of all tokens and 128,256 words in single precision is 4 GiB for 8,192 tokens, and several of them are needed on
the way. Here the head's product, the loss and its slope are computed for some tokens at a time, going forward, and only
the slopes of the states (and of the head, where it is learnt) are kept for the way back: as Liger-Kernel does (Hsu et
al., 2024), in plain torch, and with each slope taken of the logits in single precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pagoda.model.training.encoding import IGNORED

_CELLS = 2**29
"""Logits at once: 1 GiB of them in half precision."""
_ALIGNED = 1024
"""Tokens at once are a multiple of it: matrix units like round sizes."""

Piece = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Head:
    """The output layer of a causal model, which gives losses while ``learning``."""

    def __init__(self, layer: torch.nn.Linear, *, compiled: bool) -> None:
        self._layer = layer
        self._labels: torch.Tensor | None = None
        self._piece: Piece = torch.compile(loss_and_slope) if compiled else loss_and_slope
        setattr(layer, "forward", self._forward)  # noqa: B010  (its own parameter has another name)

    @contextmanager
    def learning(self, labels: torch.Tensor) -> Iterator[None]:
        """Meanwhile the layer gives the loss summed over the supervised among ``labels`` (rows, tokens).

        It stays where the model calls it, so that what wraps either of them (FSDP2, mixed precision) works on.
        """
        self._labels = labels
        try:
            yield
        finally:
            self._labels = None

    def _forward(self, states: torch.Tensor) -> torch.Tensor:
        layer, labels = self._layer, self._labels
        if labels is None:
            return torch.nn.functional.linear(states, layer.weight)
        wanted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
        found: torch.Tensor = _Loss.apply(states, layer.weight, wanted, self._piece)  # type: ignore[no-untyped-call]
        return found


def find_head(model: Any, *, compiled: bool) -> Head | None:
    """The head of a causal model; None where its logits are more than a plain product (Gemma 2 caps them, Cohere and
    Granite scale them, an adapter may lie on it)."""
    layer = model.get_output_embeddings()
    if type(layer) is not torch.nn.Linear or "bias" in dict(layer.named_parameters()):
        return None
    given: list[Any] = []
    watch = layer.register_forward_hook(lambda _module, _inputs, output: given.append(output))
    was_training = model.training
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # not compiled for these four tokens
            logits = model.eval()(input_ids=torch.tensor([[1, 2, 3, 4]], device=layer.weight.device)).logits
    finally:
        watch.remove()
        model.train(was_training)
    plain = len(given) == 1 and torch.equal(given[0].float(), logits.float())
    return Head(layer, compiled=compiled) if plain else None


def loss_and_slope(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The cross entropy summed over tokens, and its slope: (tokens, words) and (tokens,) to one number and (tokens,
    words) of the logits' type."""
    logs = torch.log_softmax(logits, -1, dtype=torch.float32)
    at = targets[:, None]
    loss = -logs.gather(-1, at).sum()
    chances = logs.exp()
    slope = torch.where(torch.arange(logits.shape[-1], device=logits.device) == at, chances - 1, chances)
    return loss, slope.to(logits.dtype)


class _Loss(torch.autograd.Function):
    """Of states (rows, tokens, width), the head (words, width) and what is wanted (rows, tokens) the summed loss."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor, wanted: torch.Tensor, piece: Piece) -> Any:
        """Slopes are computed at once; the way back only weighs them."""
        kind = states.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        with torch.autocast(kind, enabled=False):
            words, flat = weight.to(dtype), states.flatten(0, 1).to(dtype)
            back = torch.zeros_like(flat)
            learnt = torch.zeros_like(words, dtype=torch.float32) if ctx.needs_input_grad[1] else None
            total = torch.zeros((), dtype=torch.float32, device=flat.device)
            targets = wanted.flatten()
            places = targets.ne(IGNORED).nonzero()[:, 0]
            for part in torch.split(places, max(1, _CELLS // len(words) // _ALIGNED) * _ALIGNED):
                own = flat[part]
                loss, slope = piece(own @ words.T, targets[part])
                total += loss
                back[part] = slope @ words
                if learnt is not None:
                    learnt += slope.T @ own
        ctx.save_for_backward(back.view(states.shape), learnt)
        ctx.kinds = states.dtype, weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> Any:
        """``given`` is how much the total weighs."""
        back, learnt = ctx.saved_tensors
        of_states, of_weight = ctx.kinds
        slopes = (back * given[0]).to(of_states)
        return slopes, None if learnt is None else (learnt * given[0]).to(of_weight), None, None
