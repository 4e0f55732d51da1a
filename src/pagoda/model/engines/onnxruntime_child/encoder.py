"""What the server answers from: an encoder with its tokenizer, over a mapped GGUF file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pagoda.core.errors import Unavailable
from pagoda.model.catalog.gguf_content import read_gguf
from pagoda.model.engines.gathering import Gathering, Wanted
from pagoda.model.engines.onnxruntime_child.graph import build_graph
from pagoda.model.engines.onnxruntime_child.vocabulary import Vocabulary

_TOKENS_TOGETHER = 256
"""Of a batch, padding included: what a layer makes of them stays in a core's cache. 512 and more were slower."""
_ROUNDS_A_MICROSECOND = 50  # of an idle thread that spins, about


class Encoder:
    """One encoder, ready to answer."""

    embeds = True

    def __init__(self, config: Mapping[str, Any]) -> None:
        content = read_gguf(Path(config["path"]))
        self.context: int = config["context"]
        self.served = 0
        """Tokens embedded."""
        self.busy = 0
        """Requests that are not answered yet."""
        try:
            self._vocabulary = Vocabulary(content)
            self.size = self._vocabulary.size
            self._tokens = content.tensors["token_embd.weight"]
            types = content.tensors["token_types.weight"].values([0])
            self._places = content.tensors["position_embd.weight"].values(slice(self.context)) + types
            graph = build_graph(content)
        except KeyError as error:
            raise Unavailable(f"its file lacks {error}", code="model_broken", retryable=False) from error
        self._first = content.header.pooling == "first"
        options = _options(config["threads"], config["spin"])
        matrices = [onnxruntime.OrtValue.ortvalue_from_numpy(each) for each in graph.matrices.values()]
        options.add_external_initializers(list(graph.matrices), matrices)
        try:
            self._session = onnxruntime.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no root of their own; they tell of matrices that do not fit
            raise Unavailable(
                f"ONNX Runtime refuses it ({str(error).splitlines()[0]})", code="model_broken", retryable=False
            ) from error
        self._gathering = Gathering(self._embed)

    def ids_of(self, texts: Sequence[str], *, special: bool, parse: bool) -> list[list[int]]:
        """Token ids of each text; ``special`` adds what begins and ends it, ``parse`` reads such in it."""
        return self._vocabulary.encode(texts, special=special, parse=parse)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens."""
        return self._vocabulary.decode(ids)

    async def embed(self, inputs: Sequence[Sequence[int]]) -> list[bytes]:
        """Vectors, computed together with those of other requests."""
        self.busy += 1
        try:
            return await self._gathering.embed(inputs)
        finally:
            self.busy -= 1

    def _embed(self, inputs: Sequence[Sequence[int]], wanted: Wanted) -> list[bytes]:
        """A unit vector for each input, as little-endian single precision; ends once none is wanted."""
        vectors: list[bytes] = [b""] * len(inputs)
        for places in batches([len(ids) for ids in inputs]):
            if not wanted():
                break
            some = [inputs[place] for place in places]
            for place, row in zip(places, self._forward(some), strict=True):
                vectors[place] = row.tobytes()
            self.served += sum(map(len, some))
        return vectors

    def _forward(self, inputs: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        width = max(map(len, inputs))
        mask = np.zeros((len(inputs), width), np.int32)
        states = np.zeros((len(inputs), width, self._places.shape[1]), np.float32)
        for row, ids in enumerate(inputs):
            mask[row, : len(ids)] = 1
        # Boolean places go row by row, as the tokens of all texts do one after another.
        states[mask == 1] = self._tokens.values(np.concatenate([np.asarray(ids, np.int64) for ids in inputs]))
        states += self._places[:width]
        pooling = np.zeros(mask.shape, np.float32)
        if self._first:
            pooling[:, 0] = 1
        else:
            pooling[:] = mask / mask.sum(axis=1, keepdims=True)
        given = {"states": states, "mask": mask, "pooling": pooling[:, None]}
        vectors: NDArray[np.float32] = self._session.run(["vectors"], given)[0]
        return vectors.astype("<f4", copy=False)


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The places of texts by length, the shortest first, in batches of little padding and bounded size."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[place] > _TOKENS_TOGETHER:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _options(threads: int, spin: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin > 0)))
    if spin:
        microseconds = max(1, spin // _ROUNDS_A_MICROSECOND)
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(microseconds))
    return options
