"""``/api/v1/experiments``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool

from pagoda.interface.schemas.shared import Shape, Strict
from pagoda.logic.experiments.design import Allocation, Direction, TargetKind, Unit

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Model = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,480}$")]
Share = Annotated[float, Field(gt=0, lt=1, strict=True)]
Exposure = Annotated[float, Field(gt=0, le=1, strict=True, description="Share of all units that take part.")]
Bound = Annotated[float, Field(gt=0, le=1e12, strict=True)]
Difference = Annotated[float, Field(ge=-1e12, le=1e12, strict=True)]


class TargetFields(Strict):
    """What callers name: a model by id or alias, or a prompt by name and label."""

    kind: TargetKind
    name: Model
    label: str = Field("", max_length=64, pattern=r"^[A-Za-z0-9._-]*$", description="Of a prompt; empty: production.")


class VariantFields(Strict):
    """What a caller gets in the target's place; the first variant is the control."""

    name: Name
    share: Share
    model: Model | None = None
    version: int | None = Field(None, ge=1, le=2**31, strict=True)


class MetricFields(Strict):
    """What decides."""

    name: Name = Field(
        description="latency, first_token, tokens, cost, refusal, error, thumb, score, or any of feedback."
    )
    direction: Direction = "up"
    most: Bound = Field(1.0, description="The largest outcome; larger ones count as this much.")


class GuardrailFields(Strict):
    """What must not grow by more than the margin."""

    name: Name
    margin: float = Field(ge=0, le=1e12, strict=True)
    most: Bound = 1.0


class ExperimentRequest(Strict):
    """An experiment that is wanted."""

    name: Name
    target: TargetFields
    variants: list[VariantFields] = Field(max_length=50)
    metric: MetricFields
    guardrails: list[GuardrailFields] = Field([], max_length=20)
    alpha: float = Field(0.05, ge=0.0001, le=0.5, strict=True)
    baseline: Difference | None = Field(None, description="The control's mean, as far as it is known.")
    effect: Difference | None = Field(None, description="Smallest difference worth knowing.")
    unit: Unit = Field("user", description="user: X-Experiment-Unit, else user, else the key; request: each by itself.")
    holdout: float = Field(0.0, ge=0, le=0.9, strict=True, description="Share of units that never take part.")
    allocation: Allocation = "fixed"
    exposure: Exposure = 1.0
    start: StrictBool = Field(False, description="Let it run at once.")


class RampRequest(Strict):
    """How far an experiment is opened."""

    exposure: Exposure
    shares: dict[Name, Share] | None = Field(None, max_length=10, description="Of the units that are new, by variant.")


class PlanRequest(Strict):
    """What is to be told apart, in the metric's unit divided by its largest outcome."""

    baseline: float = Field(gt=0, lt=1, strict=True)
    effect: float = Field(gt=-1, lt=1, strict=True)
    alpha: float = Field(0.05, gt=0, lt=1, strict=True)
    power: float = Field(0.8, ge=0.5, lt=1, strict=True)
    deviation: float | None = Field(None, gt=0, le=0.5, strict=True)
    share: float = Field(0.5, gt=0, lt=1, strict=True)


class TargetObject(Shape):
    """What callers name."""

    kind: TargetKind
    name: str
    label: str


class VariantObject(Shape):
    """A variant."""

    name: str
    share: float
    model: str | None
    version: int | None


class MetricObject(Shape):
    """What decides."""

    name: str
    direction: Direction
    most: float


class GuardrailObject(Shape):
    """What must not grow."""

    name: str
    margin: float
    most: float


class SliceObject(Shape):
    """Part of the units, and how it is shared out."""

    upto: float
    shares: list[float]


class ExperimentObject(Shape):
    """An experiment."""

    object: Literal["experiment"]
    id: str
    name: str
    team: str
    state: Literal["draft", "running", "stopped"]
    target: TargetObject
    variants: list[VariantObject]
    metric: MetricObject
    guardrails: list[GuardrailObject]
    alpha: float
    baseline: float | None
    effect: float | None
    unit: Unit
    holdout: float
    allocation: Allocation
    exposure: float
    slices: list[SliceObject]
    created: str
    started: str | None
    stopped: str | None


class ExperimentList(Shape):
    """Experiments, newest first."""

    object: Literal["list"]
    data: list[ExperimentObject]


class PlanObject(Shape):
    """Outcomes of all variants together."""

    object: Literal["experiment.plan"]
    fixed: int = Field(description="For a test with one look at the end.")
    typical: int = Field(description="By which half of all experiments with this effect are decided.")
    enough: int = Field(description="By which the wanted power is reached.")


class ArmObject(Shape):
    """A variant by one metric."""

    variant: str
    outcomes: int
    mean: float | None


class ComparisonObject(Shape):
    """A variant beside the control, valid at any time."""

    variant: str
    says: Literal["better", "worse", "open", "held", "broken"]
    difference: float
    low: float
    high: float
    e_value: float
    decided_at: int | None
    drifts: bool


class MeasureObject(Shape):
    """All variants by one metric."""

    metric: str
    margin: float | None
    variants: list[ArmObject]
    comparisons: list[ComparisonObject]


class VerdictObject(Shape):
    """An experiment as it stands now."""

    object: Literal["experiment.verdict"]
    experiment: str
    id: str
    state: str
    alpha: float
    units: dict[str, int]
    fairness: float
    primary: MeasureObject
    guardrails: list[MeasureObject]
    winner: str | None
    plan: PlanObject | None
    says: str
