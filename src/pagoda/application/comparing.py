"""Comparisons at work: what a run of the kind ``comparison`` does, and how one is found again that was begun before.

A run's config holds the prompts themselves and the digest of the data, so that a comparison that goes on compares what
it began with.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pagoda.application.batching import parallel_of
from pagoda.application.client import home_door
from pagoda.core.errors import InvalidRequest
from pagoda.core.ports import Inference
from pagoda.core.runs import RunContext
from pagoda.core.runs.files import write_json
from pagoda.core.settings import Settings
from pagoda.core.types import Call, Json
from pagoda.logic.batches.work import Pace
from pagoda.logic.evaluation.dataset import Source, check_digest, read_cases
from pagoda.logic.evaluation.naming import Means, check_scorer, scorer_from
from pagoda.logic.evaluation.page import page, verdict_lines
from pagoda.logic.evaluation.report import Report, make_report, report_json
from pagoda.logic.evaluation.score import Case, Scorer
from pagoda.logic.evaluation.trials import Tick, Trials, Variant
from pagoda.logic.prompts.composing import Composer
from pagoda.logic.prompts.file import read_prompt
from pagoda.logic.prompts.prompt import PromptVersion
from pagoda.service.limits.prices import price_table

KIND = "comparison"
REPORT, PAGE = "report.json", "report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run's config."""

    prompts: tuple[Mapping[str, Json], ...]
    """Each with ``name`` (in the report), ``source``, ``version``, ``tenant``."""
    models: tuple[str, ...]
    data: Mapping[str, Json]
    """A ``Source``, as a table."""
    digest: str
    """Of the data."""
    scorers: tuple[str, ...]
    repeats: int = 1
    language: str | None = None
    report_language: str = "en"
    concurrency: int = 0
    judge_model: str | None = None
    values: Mapping[str, Json] = field(default_factory=dict)


def plan_json(plan: Plan) -> dict[str, Json]:
    """The plan as a run keeps it."""
    told = asdict(plan)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}


def prompt_entry(name: str, version: PromptVersion) -> dict[str, Json]:
    """A prompt as a plan keeps it."""
    return {"name": name, "source": version.source, "version": version.version, "tenant": version.tenant}


async def run_comparison(context: RunContext) -> Mapping[str, Json]:
    """Ask what was not asked yet, score what was not scored yet, and write the report."""
    plan = plan_of(context.config)
    cases, trials = await asyncio.to_thread(_trials, plan, context)

    def tick(stage: str, done: int, total: int) -> None:
        context.progress(stage, done, total)

    async with home_door(context.settings, os.environ) as door:
        call = Call(purpose="evaluation")
        means = Means(
            door=door,
            call=call,
            judge_model=plan.judge_model or context.settings.defaults.chat,
            embedding_model=context.settings.defaults.embedding,
            language=plan.report_language,
        )
        scorers = [scorer_from(text, means) for text in plan.scorers]
        tick("asking", 0, len(trials))
        await compare(trials, scorers, Desk(door, context.settings, plan.concurrency), tick)
    report = report_of(trials, plan.scorers, context.settings)
    await asyncio.to_thread(_write, report, plan, context.artifacts)
    winner = None if report.winner is None else report.variants[report.winner].name
    return {"winner": winner, "cases": len(cases), "report": str(context.artifacts / PAGE)}


@dataclass(frozen=True, slots=True)
class Desk:
    """Where trials are asked: the door, and how many at once (0: as many as the engines compute)."""

    door: Inference
    settings: Settings
    concurrency: int = 0

    def pace(self, models: Sequence[str]) -> Pace:
        """How many are asked at once."""
        if self.concurrency:
            return Pace(self.concurrency, self.concurrency)
        parallel = max(parallel_of(self.settings, model) for model in models)
        most = min(parallel, _MOST_AT_ONCE)
        return Pace(most, most)


_MOST_AT_ONCE = 64


async def compare(trials: Trials, scorers: Sequence[Scorer], desk: Desk, tick: Tick) -> None:
    """Ask and score."""
    call = Call(purpose="evaluation")
    models = sorted({variant.model for variant in trials.variants})
    composer = Composer(desk.door, desk.settings.defaults.embedding)
    await trials.ask_all(desk.door, composer, desk.pace(models), call, tick)
    await trials.score_all(scorers, desk.pace(models), call, tick)


def report_of(trials: Trials, scorers: Sequence[str], settings: Settings) -> Report:
    """The report, with the operator's prices."""
    table = price_table(settings.prices)

    def cost(model: str, prompt: int, cached: int, completion: int) -> int:
        return table.of(model).cost(prompt, cached, completion)

    return make_report(trials, scorers, cost, table.currency)


def variants_of(prompts: Sequence[tuple[str, PromptVersion]], models: Sequence[str], plan: Plan) -> list[Variant]:
    """Each prompt on each model; the model is part of the name where there are several."""
    return [
        Variant(
            name=name if len(models) == 1 else f"{name} · {model}",
            version=version,
            model=model,
            language=plan.language,
            values=plan.values,
        )
        for name, version in prompts
        for model in models
    ]


def check_plan(plan: Plan) -> int:
    """How many trials a plan has. Raises ``InvalidRequest`` for what can be seen before anything is asked."""
    if len({entry["name"] for entry in plan.prompts}) != len(plan.prompts):
        raise InvalidRequest("Two prompts have the same name in this comparison; write NAME=PROMPT for one of them.")
    for text in plan.scorers:
        check_scorer(text)
    cases = read_cases(source_of(plan))
    variants = variants_of(prompts_of(plan), plan.models, plan)
    for variant in variants:
        known = {variable.name: variable for variable in variant.version.prompt.variables}
        if unknown := sorted({*plan.data["columns"], *plan.values} - known.keys()):
            raise InvalidRequest(f"{variant.name} has no variable {unknown[0]!r}; it has: {', '.join(known)}.")
        for name in (name for name, variable in known.items() if variable.required):
            if name not in {*cases[0].values, *plan.values}:
                raise InvalidRequest(
                    f"{plan.data['path']} has no column {name!r}, which {variant.name} needs; it has: "
                    f"{', '.join(map(str, cases[0].values))[:300]}. Use --map {name}=COLUMN."
                )
    return len(cases) * len(variants) * plan.repeats


def plan_of(config: Mapping[str, Json]) -> Plan:
    """The plan that a run keeps."""
    lists = {name: tuple(config[name]) for name in ("prompts", "models", "scorers")}
    return Plan(**{**config, **lists})


def source_of(plan: Plan) -> Source:
    """Its data."""
    given: dict[str, Any] = dict(plan.data)
    return Source(**given)


def prompts_of(plan: Plan) -> list[tuple[str, PromptVersion]]:
    """Its prompts, by the names in the report."""
    found = []
    for entry in plan.prompts:
        read = read_prompt(entry["source"], entry["name"], tenant=entry["tenant"])
        found.append((entry["name"], replace(read, version=entry["version"])))
    return found


def _trials(plan: Plan, context: RunContext) -> tuple[list[Case], Trials]:
    source = source_of(plan)
    check_digest(source.path, plan.digest)
    cases = read_cases(source)
    context.checkpoints.mkdir(parents=True, exist_ok=True)
    variants = variants_of(prompts_of(plan), plan.models, plan)
    return cases, Trials(variants, cases, plan.repeats, context.checkpoints)


def _write(report: Report, plan: Plan, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    verdict = verdict_lines(report, plan.report_language)
    write_json(folder / REPORT, {"verdict": verdict, **report_json(report)})
    (folder / PAGE).write_text(page(report, plan.report_language), encoding="utf-8")
