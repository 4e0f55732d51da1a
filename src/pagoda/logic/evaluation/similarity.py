"""A scorer by likeness of meaning: the cosine of the embeddings of answer and expectation, asked at the door."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagoda.core.ports import Inference
from pagoda.core.types import Call, Embed
from pagoda.logic.evaluation.score import UNREAD, Case, Output, Score, could_not_judge


@dataclass(frozen=True, slots=True)
class Similarity:
    """Cosine similarity, -1 to 1; ``threshold`` and more is a success."""

    door: Inference
    model: str
    call: Call
    threshold: float = 0.8
    name: str = "similarity"

    async def score(self, case: Case, output: Output) -> Score:
        """Both texts in one request."""
        if case.expected is None:
            return could_not_judge("nothing is expected of this case")
        if not output.said:
            return UNREAD
        found = await self.door.embed(Embed(model=self.model, inputs=(output.said, case.expected)), self.call)
        left, right = (np.frombuffer(vector, "<f4") for vector in found.vectors)
        value = float(left @ right)
        return Score(value, value >= self.threshold, f"cosine {value:.3f}")
