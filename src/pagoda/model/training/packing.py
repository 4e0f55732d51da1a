"""Batches: several rows in one sequence without a leak between them, or padded to the longest. Tensors on the CPU.

Packed rows are told apart by positions that begin again at 0, *without* an attention mask: from these alone
transformers builds a block-diagonal mask on sdpa and eager. A mask of ones beside them would switch that off, and the
rows would see one another (shown by perturbation in tests/unit/model/training/test_invariance.py). Not every
architecture heeds the positions, so each model is tried (``check_packing``).
"""

from __future__ import annotations

import bisect
import inspect
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pagoda.core.errors import InvalidRequest
from pagoda.model.training.encoding import IGNORED, Example

_BATCHES_A_PART = 50
_ROUNDING = 1e-5
"""Of single precision, relative: experts sum other rows beside. A mask leaves exactly nothing."""


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


class Order(torch.utils.data.Sampler[int]):
    """In which order sequences are taken: drawn anew each epoch from the seed and the epoch alone.

    transformers' own sampler by length draws from the global state, so a training that is resumed in the middle of an
    epoch would see other batches. ``group``: sequences of a batch are of like length; 0: any.
    """

    def __init__(self, lengths: Sequence[int], seed: int, group: int) -> None:
        self._lengths = tuple(lengths)
        self._seed = seed
        self._group = group
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Told by the trainer at the beginning of each."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        draw = random.Random(f"{self._seed}:{self._epoch}")
        order = draw.sample(range(len(self._lengths)), len(self._lengths))
        if not self._group:
            return iter(order)
        # Sorted within parts of fifty batches, so that batches are alike inside and yet differ from epoch to epoch.
        part = self._group * _BATCHES_A_PART
        sorted_parts = (
            sorted(order[at : at + part], key=lambda place: -self._lengths[place]) for at in range(0, len(order), part)
        )
        ordered = [place for each in sorted_parts for place in each]
        batches = [ordered[at : at + self._group] for at in range(0, len(ordered), self._group)]
        short = batches.pop() if len(batches[-1]) < self._group else []
        draw.shuffle(batches)
        return iter([place for batch in [*batches, short] for place in batch])


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


@torch.no_grad()
def check_packing(model: Any) -> None:
    """Raise ``InvalidRequest`` where the model sees from one row of a pack into the next.

    Found by perturbation: another first row must leave every logit of the second where it was. Models with alibi, a
    state or a convolution along the sequence, or positions that they count by themselves do not pass.
    """
    model.eval()
    words = model.config.get_text_config().vocab_size
    first, other, second = ([(start + step) % words for step in range(9)] for start in (11, 23, 37))
    told = []
    for before in (first, other):
        parts = tuple(Example(number, tuple(ids), tuple(ids)) for number, ids in enumerate((before, second)))
        batch = Collator(0, packed=True)([Rows([Packed(parts)])[0]])
        given = {name: batch[name].to(model.device) for name in ("input_ids", "position_ids")}
        if "position_ids" not in inspect.signature(model.forward).parameters:
            del given["position_ids"]
        told.append(model(**given, use_cache=False).logits[0, len(before) :])
    moved, size = (told[0] - told[1]).abs().max().item(), told[0].abs().max().item()
    if not moved <= max(torch.finfo(told[0].dtype).eps / 4, _ROUNDING) * size:  # a NaN is not
        raise InvalidRequest(
            f"packing is not for {model.config.model_type} models: a row would see the ones packed before it (another "
            f"first row moved the second's logits by {moved:.2g} of {size:.2g}). Set packing: false.",
            param="packing",
        )
