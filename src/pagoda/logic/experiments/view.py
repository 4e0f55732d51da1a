"""Experiments, plans and verdicts as JSON, for the API and for commands with ``--json``."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pagoda.logic.experiments.book import Experiment
    from pagoda.logic.experiments.plan import Plan
    from pagoda.logic.experiments.verdict import Measure, Verdict


def experiment_json(experiment: Experiment) -> dict[str, Any]:
    """An experiment."""
    design = experiment.design
    return {
        "object": "experiment",
        "id": experiment.id,
        "name": experiment.name,
        "team": experiment.team,
        "state": experiment.state,
        "target": asdict(experiment.target),
        "variants": [asdict(variant) for variant in design.variants],
        "metric": asdict(design.metric),
        "guardrails": [asdict(guard) for guard in design.guardrails],
        "alpha": design.alpha,
        "baseline": design.baseline,
        "effect": design.effect,
        "unit": design.unit,
        "holdout": design.holdout,
        "allocation": design.allocation,
        "exposure": experiment.exposure,
        "slices": [{"upto": each.upto, "shares": list(each.shares)} for each in experiment.slices],
        "created": experiment.created.isoformat(),
        "started": _time(experiment.started),
        "stopped": _time(experiment.stopped),
    }


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict."""
    return {
        "object": "experiment.verdict",
        "experiment": verdict.experiment.name,
        "id": verdict.experiment.id,
        "state": verdict.experiment.state,
        "alpha": verdict.experiment.design.alpha,
        "units": dict(verdict.units),
        "fairness": verdict.fairness,
        "primary": _measure_json(verdict.primary),
        "guardrails": [_measure_json(guard) for guard in verdict.guardrails],
        "winner": verdict.winner,
        "plan": None if verdict.plan is None else plan_json(verdict.plan),
        "says": verdict.sentence,
    }


def plan_json(plan: Plan) -> dict[str, Any]:
    """Sample sizes."""
    return {"object": "experiment.plan", **asdict(plan)}


def _measure_json(measure: Measure) -> dict[str, Any]:
    return {
        "metric": measure.metric,
        "margin": measure.margin,
        "variants": [asdict(arm) for arm in measure.arms],
        "comparisons": [
            {
                "variant": each.variant,
                "says": each.says,
                "difference": each.evidence.estimate,
                "low": each.evidence.low,
                "high": each.evidence.high,
                "e_value": each.evidence.e_value,
                "decided_at": each.evidence.decided_at,
                "drifts": each.evidence.drifts,
            }
            for each in measure.comparisons
        ],
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
