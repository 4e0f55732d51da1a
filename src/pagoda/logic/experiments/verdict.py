"""How an experiment stands: what its outcomes say now, valid at any time, and in one sentence.

A variant wins only where the primary metric is better beyond doubt and no guardrail is known to be broken. All
comparisons are with the control; ``alpha`` is divided among the variants, and for guardrails among these too.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from pagoda.core.errors import InvalidRequest
from pagoda.logic.experiments.betting import Evidence, Outcomes, stakes, weigh_up
from pagoda.logic.experiments.book import Experiment, ExperimentBook, Seen
from pagoda.logic.experiments.design import HOLDOUT, Design
from pagoda.logic.experiments.plan import Plan, Question, plan

Word: TypeAlias = Literal["better", "worse", "open", "held", "broken"]

UNFAIR = 1000.0
"""An e-value of the units' shares from which on the assignment itself is doubted."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A variant by one metric."""

    variant: str
    outcomes: int
    mean: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A variant beside the control by one metric, in the metric's unit."""

    variant: str
    evidence: Evidence
    says: Word


@dataclass(frozen=True, slots=True)
class Measure:
    """All variants by one metric."""

    metric: str
    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...]
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """An experiment as it stands."""

    experiment: Experiment
    units: Mapping[str, int]
    fairness: float
    """E-value against "the units were shared out as planned"."""
    primary: Measure
    guardrails: tuple[Measure, ...]
    winner: str | None
    plan: Plan | None
    sentence: str


async def look(book: ExperimentBook, team: str, reference: str) -> Verdict:
    """The verdict on an experiment now. Raises ``NotFound``."""
    experiment = await book.get(team, reference)
    seen = {metric: await book.seen(experiment.id, metric) for metric in experiment.design.metrics}
    return await asyncio.to_thread(judge, experiment, seen, await book.units(experiment.id))


def judge(experiment: Experiment, seen: Mapping[str, Seen], units: Mapping[tuple[str, int], int]) -> Verdict:
    """The verdict on what was ``seen`` by each metric. Takes a second for a hundred thousand outcomes."""
    design = experiment.design
    alpha = design.alpha / (len(design.variants) - 1)
    primary = _measure(experiment, design.metric.name, seen, alpha, None)
    guards = tuple(
        _measure(experiment, guard.name, seen, alpha / len(design.guardrails), guard.margin)
        for guard in design.guardrails
    )
    fairness = unfairness(experiment, units)
    winner = None if fairness >= UNFAIR else _winner(design, primary, guards)
    planned = _plan(design, alpha)
    total: dict[str, int] = {}
    for (variant, _), count in units.items():
        total[variant] = total.get(variant, 0) + count
    sentence = _sentence(design, primary, guards, winner, planned, fairness)
    return Verdict(experiment, total, fairness, primary, guards, winner, planned, sentence)


def _measure(
    experiment: Experiment, metric: str, seen: Mapping[str, Seen], alpha: float, margin: float | None
) -> Measure:
    design = experiment.design
    found, most = seen[metric], design.metrics[metric]
    names, slices = np.array(found.variants), np.array(found.slices, dtype=int)
    values = np.array(found.values, dtype=float)
    arms = []
    for name in (*(variant.name for variant in design.variants), *((HOLDOUT,) if design.holdout else ())):
        part = values[names == name]
        arms.append(Arm(name, len(part), float(part.mean()) if len(part) else None))
    primary = margin is None
    known = design.effect if primary and design.effect is not None else margin
    baseline = design.baseline if primary else None
    bets = stakes(None if not known else known / most, 0.5 if baseline is None else baseline / most)
    comparisons = []
    for place, variant in enumerate(design.variants[1:], 1):
        both = (names == design.control.name) | (names == variant.name)
        given = [each.shares[place] / (each.shares[0] + each.shares[place]) for each in experiment.slices]
        outcomes = Outcomes(
            (names[both] == variant.name).astype(float),
            np.array(given)[slices[both]] if both.any() else np.zeros(0),
            values[both] / most,
        )
        evidence = _scaled(weigh_up(outcomes, alpha, bets), most)
        says = _direction(design, evidence) if margin is None else _guard(evidence, margin)
        comparisons.append(Comparison(variant.name, evidence, says))
    return Measure(metric, tuple(arms), tuple(comparisons), margin)


def _scaled(evidence: Evidence, most: float) -> Evidence:
    return Evidence(
        low=evidence.low * most,
        high=evidence.high * most,
        estimate=evidence.estimate * most,
        e_value=evidence.e_value,
        decided_at=evidence.decided_at,
        drifts=evidence.drifts,
    )


def _direction(design: Design, evidence: Evidence) -> Word:
    if evidence.low > 0:
        return "better" if design.metric.direction == "up" else "worse"
    if evidence.high < 0:
        return "worse" if design.metric.direction == "up" else "better"
    return "open"


def _guard(evidence: Evidence, margin: float) -> Word:
    if evidence.low > margin:
        return "broken"
    return "held" if evidence.high <= margin else "open"


def _winner(design: Design, primary: Measure, guards: Sequence[Measure]) -> str | None:
    broken = {each.variant for guard in guards for each in guard.comparisons if each.says == "broken"}
    better = [each.variant for each in primary.comparisons if each.says == "better" and each.variant not in broken]
    if len(better) == 1:
        return better[0]
    if all(each.says == "worse" or each.variant in broken for each in primary.comparisons):
        return design.control.name
    return None


def unfairness(experiment: Experiment, units: Mapping[tuple[str, int], int]) -> float:
    """How strongly the numbers of units speak against the planned shares: an e-value, so it may be looked at any time.

    Dirichlet mixtures of multinomials, each slice by itself, after Lindon & Malek, "Anytime-valid inference for
    multinomial count data" (NeurIPS 2022). Large where exposures are lost on one side only: no outcome counts then.
    """
    logarithm = 0.0
    for number, slice_ in enumerate(experiment.slices):
        counts = [units.get((variant.name, number), 0) for variant in experiment.design.variants]
        weight = [100 * share for share in slice_.shares]  # a prior that looks for differences of a few percent
        logarithm += math.lgamma(sum(weight)) - math.lgamma(sum(weight) + sum(counts))
        for count, prior, share in zip(counts, weight, slice_.shares, strict=True):
            logarithm += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share)
    return math.exp(min(logarithm, 500.0))


def _plan(design: Design, alpha: float) -> Plan | None:
    """What it takes, where the design says how large a difference is looked for."""
    if design.effect is None or design.baseline is None:
        return None
    most, sign = design.metric.most, 1 if design.metric.direction == "up" else -1
    baseline, effect = design.baseline / most, abs(design.effect) / most
    if not 0 < baseline + sign * effect < 1:
        sign = -sign
    try:
        pair = plan(Question(baseline=baseline, effect=sign * effect, alpha=alpha))
    except InvalidRequest:
        return None  # no such difference is possible at this baseline
    pairs = len(design.variants) / 2
    return Plan(*(math.ceil(count * pairs) for count in (pair.fixed, pair.typical, pair.enough)))


def _sentence(
    design: Design,
    primary: Measure,
    guards: Sequence[Measure],
    winner: str | None,
    planned: Plan | None,
    fairness: float,
) -> str:
    metric, control = design.metric.name, design.control.name
    if fairness >= UNFAIR:
        return "The units do not have the planned shares: exposures are lost somewhere, and no outcome can be trusted."
    broken = [f"{each.variant} breaks {guard.metric}" for guard in guards for each in guard.comparisons
              if each.says == "broken"]  # fmt: skip
    if winner is not None and winner != control:
        found = next(each for each in primary.comparisons if each.variant == winner)
        word = _spelled(found.evidence)
        return f"{winner} wins: {metric} differs from {control}'s by {word}; no guardrail is known to be broken."
    if winner == control:
        return f"{control} stays: no other variant is better" + (f"; {', '.join(broken)}." if broken else ".")
    if broken:
        return f"No winner: {', '.join(broken)}."
    better = [each.variant for each in primary.comparisons if each.says == "better"]
    if better:
        return f"{' and '.join(better)} are better than {control}; which of them is best is not known."
    known = sum(arm.outcomes for arm in primary.arms if arm.variant != HOLDOUT)
    word = _spelled(primary.comparisons[0].evidence) if len(primary.comparisons) == 1 else ""
    text = f"Not decided after {known} outcomes of {metric}" + (f": the difference lies in {word}." if word else ".")
    if planned is not None and known < planned.enough:
        text += (
            f" About {planned.enough - known} more would show a difference of {design.effect:g}, four times in five."
        )
    return text


def _spelled(evidence: Evidence) -> str:
    return f"{evidence.estimate:+.4g} [{evidence.low:+.4g}, {evidence.high:+.4g}]"
