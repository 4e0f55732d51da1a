"""The words of trust: what is looked at, and what a family of signals says of it. Values alone.

A signal that cannot be had has no value and says why; that is a value of its own, never a zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from pagoda.core.types import Json, TokenLogprob

Family: TypeAlias = Literal["token_probability", "consistency", "factuality"]
Action: TypeAlias = Literal["keep", "ask", "abstain", "review"]
"""What becomes of an answer below the bar."""
LOCAL = "local"
"""The name of the judge of claims that needs no model."""
FAMILIES: tuple[Family, ...] = get_args(Family)
ACTIONS: tuple[Action, ...] = get_args(Action)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A text that an answer may rest on: ``text`` are the characters of ``name`` from ``start`` on."""

    name: str
    text: str
    start: int = 0
    document: str | None = None
    """The id of the document in a collection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An answer that is looked at, with all that is known around it."""

    question: str
    answer: str
    sources: tuple[Source, ...] = ()
    earlier: tuple[str, ...] = ()
    """What the assistant said before in the same conversation, oldest first."""
    model: str = ""
    """Whose probabilities and samples count; empty: there is none to ask."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    """Of the answer's tokens, where they were told when it was generated."""

    @property
    def sourced(self) -> bool:
        """Whether there is a text that it can be held against."""
        return any(source.text.strip() for source in self.sources)

    @property
    def language(self) -> str:
        """Of the words around it."""
        return language_of(self.question or self.answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What one family says."""

    family: Family
    value: float | None
    """0 (nothing speaks for the answer) to 1; not calibrated. ``None``: it cannot be had."""
    reason: str = ""
    """Why it cannot be had."""
    features: Mapping[str, float] = field(default_factory=dict)
    """The numbers that the calibrated combination looks at."""
    detail: Mapping[str, Json] = field(default_factory=dict)
    """What people may want to know besides."""

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "family": self.family,
            "value": self.value,
            "reason": self.reason or None,
            "features": dict(self.features),
            **self.detail,
        }


def language_of(text: str) -> str:
    """The language in which to speak of a text: ``zh`` or ``en``."""
    from pagoda.logic.quality.rules import is_chinese  # noqa: PLC0415  (it brings YAML, which help pages go without)

    return "zh" if is_chinese(text) else "en"


def unavailable(family: Family, reason: str) -> Signal:
    """The signal of a family that cannot be had."""
    return Signal(family=family, value=None, reason=reason)
