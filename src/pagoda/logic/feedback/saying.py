"""What somebody says about one thing: checked as a whole when it is made. Values only; ``book`` keeps them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pagoda.core.errors import InvalidRequest
from pagoda.core.storage.text import storable
from pagoda.core.types import Message
from pagoda.logic.experiments.design import AUTOMATIC, check_name

Thumb: TypeAlias = Literal["up", "down"]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What it is about: a request (by its own id or its answer's), or a unit of an experiment; exactly one of them."""

    request: str | None = None
    experiment: str | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        if (self.request is None) == (self.experiment is None) or (self.experiment is None) != (self.unit is None):
            raise InvalidRequest(
                "Say what this is about: request_id (or completion_id) of an answer, or experiment and unit.",
                param="request_id",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Saying:
    """A thumb, a score, words, a better answer, further outcomes: at least one of them. Raises ``InvalidRequest``."""

    thumb: Thumb | None = None
    score: float | None = None
    """In [0, 1]."""
    text: str | None = None
    correction: str | None = None
    """What the answer should have been."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    messages: Sequence[Message] | None = None
    """What was asked, for services that keep no prompts; likewise ``answer``."""
    answer: str | None = None

    def __post_init__(self) -> None:
        if not (self.thumb or self.text or self.correction or self.metrics or self.score is not None):
            raise InvalidRequest("Say something: thumb, score, text, correction or metrics.", param="thumb")
        if self.score is not None and not 0 <= self.score <= 1:
            raise InvalidRequest("A score lies between 0 and 1.", param="score")
        for name, value in self.metrics.items():
            check_name(name, "metrics")
            if name in (*AUTOMATIC, "thumb", "score"):
                raise InvalidRequest(f"{name} is not told as a metric; choose another name.", param="metrics")
            if not (math.isfinite(value) and value >= 0):
                raise InvalidRequest(f"The metric {name} must be a number not below 0.", param="metrics")

    @property
    def complains(self) -> bool:
        """Whether somebody is not content with the answer."""
        return self.thumb == "down" or self.correction is not None

    @property
    def outcomes(self) -> dict[str, float]:
        """The same as outcomes of experiments."""
        told = dict(self.metrics)
        if self.thumb is not None:
            told["thumb"] = float(self.thumb == "up")
        if self.score is not None:
            told["score"] = self.score
        return told

    def row(self) -> dict[str, Any]:
        """The same as columns."""
        told = {
            "thumb": self.thumb,
            "score": self.score,
            "text": self.text,
            "correction": self.correction,
            "metrics": dict(self.metrics),
            "prompt": None if self.messages is None else {"messages": [dict(message) for message in self.messages]},
            "answer": self.answer,
        }
        return {name: storable(value) for name, value in told.items()}
