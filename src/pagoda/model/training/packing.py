"""Batches: several rows in one sequence without a leak between them, or padded to the longest. Tensors on the CPU.

Packed rows are told apart by positions that begin again at 0, *without* an attention mask: from these alone
transformers builds a block-diagonal mask on sdpa and eager. A mask of ones beside them would switch that off, and the
rows would see one another (shown by perturbation in tests/unit/model/training/test_invariance.py).
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pagoda.model.training.encoding import IGNORED, Example


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows that the model reads as one sequence."""

    parts: tuple[Example, ...]

    @property
    def length(self) -> int:
        """Tokens."""
        return sum(len(part.ids) for part in self.parts)


def pack(examples: Sequence[Example], capacity: int) -> list[Packed]:
    """Best-fit decreasing (Johnson, 1973): each row whole, into the fullest pack (``capacity`` tokens) with room."""
    bins: list[list[Example]] = []
    room: list[tuple[int, int]] = []  # (free tokens, index of the bin), sorted
    for example in sorted(examples, key=lambda each: (-len(each.ids), each.number)):
        place = bisect.bisect_left(room, (len(example.ids), -1))
        if place < len(room):
            free, index = room.pop(place)
        else:
            free, index = capacity, len(bins)
            bins.append([])
        bins[index].append(example)
        bisect.insort(room, (free - len(example.ids), index))
    return [Packed(tuple(parts)) for parts in bins]


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Sequences as transformers' Trainer takes them: by index, each a mapping with ``input_ids`` to tell its length."""

    def __init__(self, sequences: Sequence[Packed]) -> None:
        self._sequences = tuple(sequences)

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, place: int) -> dict[str, Any]:
        sequence = self._sequences[place]
        return {"input_ids": [token for part in sequence.parts for token in part.ids], "parts": sequence.parts}


class Collator:
    """Makes a batch: (rows, tokens) tensors, padded on the right."""

    def __init__(self, pad: int, *, packed: bool, classes: bool = False) -> None:
        self._pad = pad
        self._packed = packed
        self._classes = classes

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The batch; ``rows`` are the numbers of the rows in it, for messages only."""
        shape = (len(features), max(len(feature["input_ids"]) for feature in features))
        ids = torch.full(shape, self._pad)
        batch: dict[str, Any] = {"input_ids": ids}
        for line, feature in enumerate(features):
            ids[line, : len(feature["input_ids"])] = torch.tensor(feature["input_ids"])
        if self._classes:
            batch["labels"] = torch.tensor([feature["parts"][0].labels[0] for feature in features])
        else:
            batch["labels"] = self._labels(features, shape)
        if self._packed:
            batch["position_ids"] = self._positions(features, shape)
        else:
            batch["attention_mask"] = torch.zeros(shape, dtype=torch.long)
            for line, feature in enumerate(features):
                batch["attention_mask"][line, : len(feature["input_ids"])] = 1
        batch["rows"] = [[part.number for part in feature["parts"]] for feature in features]
        return batch

    def _labels(self, features: Sequence[dict[str, Any]], shape: tuple[int, int]) -> torch.Tensor:
        labels = torch.full(shape, IGNORED)
        for line, feature in enumerate(features):
            place = 0
            for part in feature["parts"]:
                labels[line, place : place + len(part.ids)] = torch.tensor(part.labels)
                labels[line, place] = IGNORED  # the last token of the row before must not learn to say it
                place += len(part.ids)
        return labels

    def _positions(self, features: Sequence[dict[str, Any]], shape: tuple[int, int]) -> torch.Tensor:
        positions = torch.zeros(shape, dtype=torch.long)
        for line, feature in enumerate(features):
            lengths = [len(part.ids) for part in feature["parts"]]
            lengths.append(shape[1] - sum(lengths))  # the padding is one more row, which nobody sees
            positions[line] = torch.cat([torch.arange(length) for length in lengths])
        return positions
