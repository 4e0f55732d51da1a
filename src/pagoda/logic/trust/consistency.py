"""The second family: would a model say the same again, and does an answer contradict itself or earlier turns?

Samples are put into clusters of one meaning, and their discrete semantic entropy is taken: Kuhn, Gal and Farquhar,
"Semantic Uncertainty", 2023; Farquhar et al., "Detecting hallucinations in large language models using semantic
entropy", Nature 630, 2024. Two texts mean the same here if each entails the other as far as embeddings, words and
details tell. Consistent is not true: a model may be wrong each time alike.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pagoda.core.errors import InvalidRequest, ModelError, NotFound
from pagoda.core.ports import Inference
from pagoda.core.types import Call, Embed
from pagoda.logic.retrieval.collection import DEFAULT_MODEL
from pagoda.logic.trust.contradictions import Parts, differ
from pagoda.logic.trust.evidence import content
from pagoda.logic.trust.sampling import draw
from pagoda.logic.trust.subject import Signal, Subject, unavailable

MEANING = DEFAULT_MODEL
"""The embedding model by which samples are compared, unless settings name another."""
SAME = 0.93
"""Cosine of multilingual E5 from which on two short answers may mean the same."""
_SHARED = 0.6  # of the words of the shorter of two texts, from which on they may mean the same
_MOST_CHARACTERS = 600  # of a text that is compared; the model takes 512 tokens


@dataclass(frozen=True, slots=True)
class Meanings:
    """Texts that can be compared: taken apart, their new words (without the question's), and vectors of unit length."""

    texts: tuple[str, ...]
    parts: tuple[Parts, ...]
    words: tuple[frozenset[str], ...]
    vectors: NDArray[np.float32]

    def cosine(self, one: int, other: int) -> float:
        """How near two texts are."""
        return float(self.vectors[one] @ self.vectors[other])

    def shared(self, one: int, other: int) -> float:
        """The share of the words of the shorter one that the other has too."""
        left, right = self.words[one], self.words[other]
        shorter = min(len(left), len(right))
        return len(left & right) / shorter if shorter else float(left == right)

    def same(self, one: int, other: int) -> bool:
        """Whether two texts mean the same."""
        if differ(self.parts[one], self.parts[other]):
            return False
        return self.cosine(one, other) >= SAME or self.shared(one, other) >= _SHARED


async def consistency(subject: Subject, against: int, door: Inference, call: Call, meaning: str = MEANING) -> Signal:
    """How far samples agree with the answer. ``against``: its contradictions; they alone are no signal."""
    try:
        samples = await _samples(subject, door, call)
        meanings = await compare([subject.answer, *samples], subject.question, door, call, meaning)
    except (InvalidRequest, NotFound, ModelError) as error:
        return unavailable("consistency", error.message)
    return read_samples(meanings, against)


async def _samples(subject: Subject, door: Inference, call: Call) -> tuple[str, ...]:
    if not subject.model:
        raise InvalidRequest("no model was named that could be asked again")
    if not subject.question.strip():
        raise InvalidRequest("without the question it cannot be asked again")
    return await draw(subject, door, call)


async def compare(texts: Sequence[str], question: str, door: Inference, call: Call, meaning: str = MEANING) -> Meanings:
    """The texts ready to be compared, by an embedding model. Raises what the door raises."""
    inputs = tuple(text.strip()[:_MOST_CHARACTERS] or "-" for text in texts)
    request = Embed(model=meaning, inputs=inputs, kind="query")
    vectors = (await door.embed(request, replace(call, purpose="judge", parent=call.request_id))).vectors
    return await asyncio.to_thread(_meanings, texts, question, vectors)


def _meanings(texts: Sequence[str], question: str, vectors: Sequence[bytes]) -> Meanings:
    asked = set(content(question))
    return Meanings(
        tuple(texts),
        tuple(map(Parts, texts)),
        tuple(frozenset(content(text)) - asked for text in texts),
        np.stack([np.frombuffer(vector, "<f4") for vector in vectors]),
    )


def clusters(meanings: Meanings, first: int = 0) -> list[list[int]]:
    """The texts from ``first`` on in clusters of one meaning; each joins the first one whose first text it means."""
    found: list[list[int]] = []
    for at in range(first, len(meanings.texts)):
        for cluster in found:
            if meanings.same(cluster[0], at):
                cluster.append(at)
                break
        else:
            found.append([at])
    return found


def semantic_entropy(sizes: Sequence[int]) -> float:
    """Discrete semantic entropy of clusters of these sizes, nats."""
    total = sum(sizes)
    return -sum(size / total * math.log(size / total) for size in sizes) if total else 0.0


def read_samples(meanings: Meanings, against: int) -> Signal:
    """The signal in an answer (the first text) and samples (the others)."""
    count = len(meanings.texts) - 1
    found = clusters(meanings, 1)
    agreeing = [meanings.same(0, at) for at in range(1, count + 1)]
    shared = [meanings.shared(0, at) for at in range(1, count + 1)]
    cosines = [meanings.cosine(0, at) for at in range(1, count + 1)]
    entropy = semantic_entropy([len(cluster) for cluster in found])
    agreement = sum(agreeing) / count
    return Signal(
        family="consistency",
        value=agreement if not against else 0.0,
        features={
            "agreement": agreement,
            "shared": sum(shared) / count,
            "closeness": sum(cosines) / count,
            "entropy": entropy / math.log(count) if count > 1 else 0.0,
            "contradictions": float(against > 0),
        },
        detail={
            "samples": list(meanings.texts[1:]),
            "clusters": sorted((len(cluster) for cluster in found), reverse=True),
            "semantic_entropy": entropy,
            "contradictions": against,
        },
    )
