"""The three families as one number that means what it says: a regression for each set of families there is.

Each logistic regression was fitted on labelled answers and calibrated on others of them; its card tells which. Where a
family is missing, the regression without it is used, so that nothing is made up for it; where all are missing, the
answer could not be judged. What the same signals say with sources at hand and without is fitted apart. The plain mean
of what there is stands beside it as the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pagoda.logic.trust.calibration import Logistic, logistic_from, sigmoid
from pagoda.logic.trust.evidence import content, kind_fit
from pagoda.logic.trust.precedent import precedent
from pagoda.logic.trust.subject import Family, Signal, Subject
from pagoda.logic.trust.weights import VERSION, read_weights

_MOST_CHARACTERS = 2000  # of an answer whose words are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A regression with its calibration: the chance is that of ``slope * logit + offset``."""

    regression: Logistic
    slope: float = 1.0
    offset: float = 0.0

    def chance(self, features: Mapping[str, float]) -> float:
        """How likely the answer is right."""
        return sigmoid(self.slope * self.regression.logit(features) + self.offset)

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        return {**self.regression.to_json(), "slope": round(self.slope, 6), "offset": round(self.offset, 6)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """How sure one may be of an answer."""

    value: float | None
    """Chance that it is right, calibrated; ``None``: it could not be judged."""
    mean: float | None
    """Plain mean of the families' own values: the baseline, not calibrated."""
    families: tuple[Family, ...]
    """Those that took part."""
    missing: Mapping[Family, str]
    """The others, and why each is missing."""
    scale: str
    """The version and the regression that gave the value, such as ``1:factuality+token_probability``."""

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "confidence": self.value,
            "judged": self.value is not None,
            "mean": self.mean,
            "families": list(self.families),
            "missing": dict(self.missing),
            "scale": self.scale or None,
        }


@cache
def scales() -> dict[str, Scale]:
    """The regressions that come with Pagoda, by the families that they need."""
    return scales_from(read_weights("confidence")["scales"])


def scales_from(kept: Mapping[str, Any]) -> dict[str, Scale]:
    """Regressions as they were kept."""
    return {
        name: Scale(regression=logistic_from(each), slope=float(each["slope"]), offset=float(each["offset"]))
        for name, each in kept.items()
    }


def scale_name(families: Sequence[Family], *, sourced: bool) -> str:
    """What the regression of a set of families is called; factuality alone tells that there are sources."""
    beside = ("sources",) if sourced and families and "factuality" not in families else ()
    return "+".join(sorted((*families, *beside)))


def form(subject: Subject) -> dict[str, float]:
    """What an answer's form tells, without any model: length, precedents, fit with its question."""
    text = subject.answer
    begin = text[:_MOST_CHARACTERS]
    asked, said = set(content(subject.question)), content(begin)
    return {
        "kind_fit": kind_fit(begin, subject.question),
        "novelty": sum(word not in asked for word in said) / max(len(said), 1),
        "log_length": math.log1p(len(text)),
        "precedent": 0.0 if subject.sourced else precedent().odds(subject.question, text),
    }


def features_of(subject: Subject, signals: Sequence[Signal]) -> dict[str, float]:
    """Everything that a regression may look at."""
    found = form(subject)
    for signal in signals:
        if signal.value is not None:
            found |= signal.features
    return found


def combine(subject: Subject, signals: Sequence[Signal], among: Mapping[str, Scale] | None = None) -> Confidence:
    """The confidence that signals give together. ``among``: regressions other than those that come with Pagoda."""
    had = tuple(signal.family for signal in signals if signal.value is not None)
    values = [signal.value for signal in signals if signal.value is not None]
    missing = {signal.family: signal.reason for signal in signals if signal.value is None}
    name = scale_name(had, sourced=subject.sourced)
    scale = (scales() if among is None else among).get(name)
    features = features_of(subject, signals)
    if scale is None or not set(scale.regression.names) <= features.keys():
        return Confidence(value=None, mean=None, families=had, missing=missing, scale="")
    return Confidence(
        value=scale.chance(features),
        mean=sum(values) / len(values),
        families=had,
        missing=missing,
        scale=f"{VERSION}:{name}",
    )
