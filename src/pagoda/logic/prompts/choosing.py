"""Choosing the examples that a prompt shows: by nearness to the question, by difference, and by a budget of tokens.

Vectors and token counts of examples are kept, since they do not change with the question.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pagoda.core.ports import Inference
from pagoda.core.types import Call, Embed, Json, Tokenize
from pagoda.logic.prompts.filling import compared
from pagoda.logic.prompts.prompt import Example, FewShot, PromptVersion
from pagoda.logic.prompts.rendering import example_turns, examples_for, language_of

Vectors = NDArray[np.float32]
T = TypeVar("T")

_MOST_KEPT = 256


class ExampleChoice:
    """The choice of examples, by one embedding model."""

    def __init__(self, door: Inference, embedding_model: str) -> None:
        self._door = door
        self._model = embedding_model
        self._vectors: OrderedDict[tuple[str, str], Vectors] = OrderedDict()
        self._counts: OrderedDict[tuple[str, str, str], list[int]] = OrderedDict()

    async def choose(
        self, version: PromptVersion, values: Mapping[str, Json], language: str | None, model: str, call: Call
    ) -> tuple[Example, ...]:
        """The examples to show for these values, the nearest to the question last. Empty where the prompt has none."""
        prompt = version.prompt
        few = prompt.techniques.few_shot
        if few is None:
            return ()
        spoken = language_of(prompt, language)
        examples = examples_for(prompt, spoken)
        if few.choose == "fixed":
            order = list(range(len(examples)))[: few.count]
        else:
            order = await self._nearest(version, spoken, examples, values, call)
        if few.tokens is not None:
            counts = await self._token_counts(version, spoken, examples, model, call)
            order = within_budget(order, counts, few.tokens)
        chosen = [examples[index] for index in order]
        return tuple(chosen if few.choose == "fixed" else reversed(chosen))

    async def _nearest(
        self,
        version: PromptVersion,
        language: str,
        examples: Sequence[Example],
        values: Mapping[str, Json],
        call: Call,
    ) -> list[int]:
        few, name = version.prompt.techniques.few_shot, compared(version.prompt)
        if few is None or name is None or not examples:
            return []
        key = (version.digest, language)
        if key not in self._vectors:
            texts = [str(example.values.get(name, "")) for example in examples]
            _keep(self._vectors, key, await self._embedded(texts, call))
        question = (await self._embedded([str(values.get(name, ""))], call))[0]
        return nearest(self._vectors[key], question, few)

    async def _embedded(self, texts: Sequence[str], call: Call) -> Vectors:
        rows = [
            (await self._door.embed(Embed(model=self._model, inputs=tuple(texts[start : start + 64])), call)).vectors
            for start in range(0, len(texts), 64)
        ]
        return np.array([np.frombuffer(row, "<f4") for batch in rows for row in batch], dtype=np.float32)

    async def _token_counts(
        self, version: PromptVersion, language: str, examples: Sequence[Example], model: str, call: Call
    ) -> list[int]:
        key = (version.digest, language, model)
        if key not in self._counts:
            counts = []
            for example in examples:
                text = "\n".join(example_turns(version.prompt, language, example))
                counts.append(len((await self._door.tokenize(Tokenize(model=model, text=text), call)).ids))
            _keep(self._counts, key, counts)
        return self._counts[key]


def nearest(vectors: Vectors, question: Vectors, few: FewShot) -> list[int]:
    """Rows of ``vectors`` (n × d, unit length) in the order of choice, ``few.count`` at most.

    ``diverse`` takes next the row with the greatest λ·sim(row, question) - (1 - λ)·max sim(row, chosen).
    """
    near = vectors @ question
    weight = few.relevance if few.choose == "diverse" else 1.0
    chosen: list[int] = []
    likeness = np.zeros(len(vectors), dtype=np.float32)
    open_ = np.ones(len(vectors), dtype=bool)
    while open_.any() and len(chosen) < few.count:
        gain = np.where(open_, weight * near - (1 - weight) * likeness, -np.inf)
        best = int(np.argmax(gain))
        chosen.append(best)
        open_[best] = False
        with_best = vectors @ vectors[best]
        likeness = with_best if len(chosen) == 1 else np.maximum(likeness, with_best)
    return chosen


def within_budget(order: Sequence[int], counts: Sequence[int], budget: int) -> list[int]:
    """Those of the examples, in order, that fit a budget of tokens together; one that does not fit is passed over."""
    taken, left = [], budget
    for index in order:
        if counts[index] <= left:
            taken.append(index)
            left -= counts[index]
    return taken


def _keep(kept: OrderedDict[Any, T], key: object, value: T) -> None:
    kept[key] = value
    while len(kept) > _MOST_KEPT:
        kept.popitem(last=False)
