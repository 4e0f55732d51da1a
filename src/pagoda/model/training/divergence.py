"""The loss of a distillation, computed a few tokens at a time, so that no table of all tokens and words is held.

Hinton et al., 2015: both distributions at a temperature, their divergence times its square. ``forward`` is
KL(teacher || student), ``reverse`` KL(student || teacher) (Gu et al., 2024).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend:
    """What is minimised: ``(1 - hard) * temperature² * KL + hard * cross-entropy``, mean over the labelled tokens."""

    divergence: Literal["forward", "reverse"] = "forward"
    temperature: float = 2.0
    hard: float = 0.0
    chunk: int = 256


def divergence(student: Any, teacher: Any, blend: Blend) -> Any:
    """The divergence at each place, natural logarithm: tensors of shape (places, words) to one of shape (places,)."""
    own = torch.log_softmax(student.float() / blend.temperature, dim=-1)
    its = torch.log_softmax(teacher.float() / blend.temperature, dim=-1)
    left, right = (its, own) if blend.divergence == "forward" else (own, its)
    return (left.exp() * (left - right)).sum(dim=-1)


def loss_of(
    student: tuple[Any, Callable[[Any], Any]], teacher: tuple[Any, Callable[[Any], Any]], labels: Any, blend: Blend
) -> tuple[Any, int]:
    """The summed loss over the labelled places, and their number.

    Of student and teacher each the states (rows, places, width) and the head that makes them logits; ``labels``
    (rows, places) holds -100 where nothing is to be learnt. The head is computed again on the way back.
    """
    wanted = labels[:, 1:].reshape(-1)
    kept = wanted != -100
    states = student[0][:, :-1].reshape(-1, student[0].shape[-1])[kept]
    others = teacher[0][:, :-1].reshape(-1, teacher[0].shape[-1])[kept]
    wanted = wanted[kept]

    def part(mine: Any, its: Any, answer: Any) -> Any:
        logits = student[1](mine)
        with torch.no_grad():
            goal = teacher[1](its)
        # Embeddings are often padded to other heights (151,936 and 152,064 rows of one family): no token lies there.
        words = min(logits.shape[-1], goal.shape[-1])
        gap = divergence(logits[:, :words], goal[:, :words], blend).sum()
        plain = torch.nn.functional.cross_entropy(logits.float(), answer, reduction="sum") if blend.hard else 0.0
        return (1 - blend.hard) * blend.temperature**2 * gap + blend.hard * plain

    total = states.new_zeros((), dtype=torch.float32)
    for start in range(0, len(wanted), blend.chunk):
        piece = slice(start, start + blend.chunk)
        total = total + checkpoint(part, states[piece], others[piece], wanted[piece], use_reentrant=False)
    return total, len(wanted)


def states_of(model: Any, ids: Any, mask: Any) -> tuple[Any, Callable[[Any], Any]]:
    """A causal model's last states (rows, places, width), and its head."""
    found = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    head: Callable[[Any], Any] = model.get_output_embeddings()
    return found, head
