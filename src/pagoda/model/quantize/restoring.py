"""A GGUF file's weights back in the checkpoint's model, as the numbers that GGML's blocks stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from pagoda.model.export.architecture import family_of
from pagoda.model.quantize.blocks import decode


def restore(file: Path, model: Any) -> Any:
    """Put the file's weights into ``model`` (transformers, the checkpoint that the file was written from); gives it.

    Tells what quantising the weights costs, to the whole vocabulary. It leaves out that llama.cpp also rounds what it
    multiplies them with.
    """
    import torch

    config, tensors = model.config.to_dict(), _Decoded(file)
    state = model.state_dict()
    with torch.no_grad():
        for name, values in family_of(config).restored(state, tensors, config):
            state[name].copy_(torch.tensor(values))
    return model


class _Decoded(Mapping[str, NDArray[np.float32]]):
    """A file's tensors by name, each decoded when it is asked for: never all of them in memory."""

    def __init__(self, file: Path) -> None:
        self._tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        tensor = self._tensors[name]
        return decode(tensor.data, tensor.tensor_type).reshape(tuple(int(side) for side in reversed(tensor.shape)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def kinds_in(file: Path) -> dict[str, int]:
    """How many numbers a file holds in each of GGML's types."""
    counts: dict[str, int] = {}
    for tensor in gguf.GGUFReader(file).tensors:
        name = tensor.tensor_type.name
        counts[name] = counts.get(name, 0) + int(tensor.n_elements)
    return counts
