"""What an experiment compares, whom, and by what it is judged; checked as a whole when it is made.

Values only. Not here: who gets what (``assignment``), and how it stands (``book``, ``verdict``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from pagoda.core.errors import InvalidRequest

TargetKind: TypeAlias = Literal["model", "prompt"]
Unit: TypeAlias = Literal["user", "request"]
Allocation: TypeAlias = Literal["fixed", "adaptive"]
Direction: TypeAlias = Literal["up", "down"]

AUTOMATIC = ("latency", "first_token", "tokens", "cost", "refusal", "error")
"""Metrics that every answer has by itself: seconds, seconds, tokens of the answer, money, and whether it happened."""

UNBOUNDED = ("latency", "first_token", "tokens", "cost")
HOLDOUT = "holdout"
"""The name of those who never take part; they get what they always got, and are counted."""

MOST_VARIANTS = 10
LEAST_ADAPTIVE_SHARE = 0.1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What callers name: a model by id or alias, or the label of a prompt."""

    kind: TargetKind
    name: str
    label: str = ""

    @property
    def key(self) -> str:
        """As one word."""
        return f"{self.name}@{self.label}" if self.kind == "prompt" else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What a caller gets in place of the target: a model, or a version of the prompt. The first one is the control."""

    name: str
    share: float
    model: str | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What is measured: an automatic metric, ``thumb``, ``score``, or any name that feedback reports."""

    name: str
    direction: Direction = "up"
    most: float = 1.0
    """The largest outcome; what is larger counts as this much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guardrail:
    """What must not get worse (larger) by more than ``margin``, in the metric's own unit."""

    name: str
    margin: float
    most: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What is settled before the first unit is drawn. Raises ``InvalidRequest`` for what cannot be compared."""

    variants: tuple[Variant, ...]
    metric: Metric
    guardrails: tuple[Guardrail, ...] = ()
    alpha: float = 0.05
    baseline: float | None = None
    """The control's mean, as far as it is known; with ``effect`` it sharpens the bets and gives a plan."""
    effect: float | None = None
    """Smallest difference worth knowing, in the metric's unit."""
    unit: Unit = "user"
    holdout: float = 0.0
    allocation: Allocation = "fixed"

    def __post_init__(self) -> None:
        _check_variants(self.variants)
        _check_metrics(self)
        if not 0.0001 <= self.alpha <= 0.5:
            raise InvalidRequest("Alpha must lie between 0.0001 and 0.5, for example 0.05.", param="alpha")
        if not 0 <= self.holdout <= 0.9:
            raise InvalidRequest("The hold-out must lie between 0 and 0.9.", param="holdout")
        if self.allocation == "adaptive" and self.unit != "request":
            raise InvalidRequest(
                "Adaptive allocation moves shares all the time, which would move people: it needs unit = request.",
                param="allocation",
            )
        if self.allocation == "adaptive" and len(self.variants) * LEAST_ADAPTIVE_SHARE >= 1:
            raise InvalidRequest(
                f"Adaptive allocation leaves each variant {LEAST_ADAPTIVE_SHARE:g}; have fewer than "
                f"{round(1 / LEAST_ADAPTIVE_SHARE)}.",
                param="variants",
            )

    @property
    def control(self) -> Variant:
        """What the others are compared with."""
        return self.variants[0]

    @property
    def shares(self) -> tuple[float, ...]:
        """The variants' shares."""
        return tuple(variant.share for variant in self.variants)

    @property
    def metrics(self) -> Mapping[str, float]:
        """What is taken down, each with its largest outcome."""
        return {guard.name: guard.most for guard in self.guardrails} | {self.metric.name: self.metric.most}


def design_json(design: Design) -> dict[str, Any]:
    """A design as it is kept and told."""
    told = asdict(design)
    return told | {"variants": list(told["variants"]), "guardrails": list(told["guardrails"])}


def design_from(kept: Mapping[str, Any]) -> Design:
    """A design that was kept or asked for."""
    return Design(
        **{
            **kept,
            "variants": tuple(Variant(**variant) for variant in kept["variants"]),
            "metric": Metric(**kept["metric"]),
            "guardrails": tuple(Guardrail(**each) for each in kept.get("guardrails", ())),
        }
    )


def check_name(name: str, param: str) -> str:
    """A name of experiments, variants and metrics. Raises ``InvalidRequest``."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:100]!r} is no name: 1 to 64 letters, digits, dots, dashes, underscores; a letter or digit first.",
            param=param,
        )
    return name


def check_shares(shares: tuple[float, ...], param: str) -> tuple[float, ...]:
    """Shares of all variants together. Raises ``InvalidRequest`` where one is empty or they do not add up."""
    if any(not 0 < share < 1 for share in shares):
        raise InvalidRequest("Each variant needs a share above 0 and below 1.", param=param)
    if abs(math.fsum(shares) - 1) > _SUM_TOLERANCE:
        raise InvalidRequest(f"The shares of all variants must add up to 1, not {math.fsum(shares):g}.", param=param)
    return shares


def _check_variants(variants: tuple[Variant, ...]) -> None:
    if not 2 <= len(variants) <= MOST_VARIANTS:
        raise InvalidRequest(
            f"An experiment compares 2 to {MOST_VARIANTS} variants, not {len(variants)}.", param="variants"
        )
    names = [check_name(variant.name, "variants") for variant in variants]
    if len(set(names)) < len(names) or HOLDOUT in names:
        raise InvalidRequest(f"Variants need different names, and none is {HOLDOUT!r}.", param="variants")
    if len({(variant.model is None, variant.version is None) for variant in variants}) > 1 or (
        (variants[0].model is None) == (variants[0].version is None)
    ):
        raise InvalidRequest(
            "Each variant names a model (for a model as target) or a version (for a prompt), all the same kind.",
            param="variants",
        )
    check_shares(tuple(variant.share for variant in variants), "variants")


def _check_metrics(design: Design) -> None:
    names = [check_name(each.name, "guardrails") for each in design.guardrails]
    names.append(check_name(design.metric.name, "metric"))
    if len(set(names)) < len(names):
        raise InvalidRequest("Each metric is named once, as the primary one or as a guardrail.", param="guardrails")
    measured: tuple[Metric | Guardrail, ...] = (design.metric, *design.guardrails)
    for each in measured:
        param = "metric" if each is design.metric else "guardrails"
        if not (math.isfinite(each.most) and each.most > 0):
            raise InvalidRequest(f"The largest outcome of {each.name} (most) must be above 0.", param=param)
        if each.name in UNBOUNDED and each.most == 1.0:
            raise InvalidRequest(
                f"{each.name} has no bound of its own: say with `most` what counts as the largest, for example 30.",
                param=param,
            )
    for guard in design.guardrails:
        if not 0 <= guard.margin < guard.most:
            raise InvalidRequest(f"The margin of {guard.name} must lie between 0 and its `most`.", param="guardrails")
    most = design.metric.most
    if design.effect is not None and not 0 < abs(design.effect) < most:
        raise InvalidRequest("The effect is a difference of the metric: not 0, and below its `most`.", param="effect")
    if design.baseline is not None and not 0 < design.baseline < most:
        raise InvalidRequest("The baseline must lie between 0 and the metric's `most`.", param="baseline")
