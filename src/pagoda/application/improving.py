"""Prompt improvement at work: what a run of the kind ``improvement`` does. Not here: the search itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagoda.application.client import home_door
from pagoda.application.comparing import Desk, Plan, compare, plan_of, prompts_of, report_of, source_of
from pagoda.core.runs import RunContext
from pagoda.core.runs.files import write_json
from pagoda.core.types import Call, Json
from pagoda.logic.evaluation.candidates import Candidate, Workbench, workbench
from pagoda.logic.evaluation.dataset import check_digest, read_cases
from pagoda.logic.evaluation.improving import Improvement, Parts, Space, best_of, search, split
from pagoda.logic.evaluation.naming import Means, scorer_from
from pagoda.logic.evaluation.page import page, verdict_lines
from pagoda.logic.evaluation.report import Report, report_json
from pagoda.logic.evaluation.score import Case, Scorer
from pagoda.logic.evaluation.trials import Trials, Variant
from pagoda.logic.prompts.prompt import PromptVersion

KIND = "improvement"
BEST, REPORT, PAGE = "best.yaml", "report.json", "report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunt:
    """What is searched, beside the plan of a comparison that has one prompt and one model."""

    instructions: tuple[str, ...] = ()
    pool: int = 16
    most_shots: int = 4
    trials: int = 20


async def run_improvement(context: RunContext) -> Mapping[str, Json]:
    """Search on the training part, judge on the held-out part, and keep the best if that agrees."""
    config: dict[str, Any] = dict(context.config)
    given = config.pop("hunt")
    hunt = Hunt(**{**given, "instructions": tuple(given["instructions"])})
    plan = plan_of(config)
    check_digest(plan.data["path"], plan.digest)
    parts = split(await asyncio.to_thread(read_cases, source_of(plan)), hunt.pool, plan.data["seed"])
    bench = workbench(prompts_of(plan)[0][1], plan.language, hunt.instructions, parts.pool)
    async with home_door(context.settings, os.environ) as door:
        means = Means(
            door=door,
            call=Call(purpose="evaluation"),
            judge_model=plan.judge_model or context.settings.defaults.chat,
            embedding_model=context.settings.defaults.embedding,
            language=plan.report_language,
        )
        scorers = [scorer_from(text, means) for text in plan.scorers]
        work = _Work(context, plan, bench, Desk(door, context.settings, plan.concurrency), scorers)
        found = await work.perform(parts, hunt)
    await asyncio.to_thread(_write, found, bench, plan, context.artifacts)
    return {"kept": found.agrees, "tried": len(found.tried), "report": str(context.artifacts / PAGE)}


class _Work:
    """One search: candidates asked and scored, each in a folder of its own under its digest."""

    def __init__(
        self, context: RunContext, plan: Plan, bench: Workbench, desk: Desk, scorers: Sequence[Scorer]
    ) -> None:
        self._context = context
        self._plan = plan
        self._bench = bench
        self._desk = desk
        self._scorers = scorers
        self._done = 0

    async def perform(self, parts: Parts, hunt: Hunt) -> Improvement:
        """Search, then judge base and best on what was held out."""
        space = Space(instructions=len(hunt.instructions), pool=len(parts.pool), most_shots=hunt.most_shots)

        async def judge(candidate: Candidate) -> float:
            version = self._bench.write(candidate)
            self._context.progress("searching", self._done, hunt.trials)
            report = await self._compared([("candidate", version)], parts.training, version.digest)
            self._done += 1
            rate = report.variants[0].scorers[0].rate
            return 0.0 if rate is None else rate.value

        tried = await search(space, judge, hunt.trials, self._plan.data["seed"])
        best = best_of(tried)
        base = next(each for each in tried if each.candidate == Candidate())
        self._context.progress("judging", 0, 1)
        named = [("base", self._bench.base)]
        if best.candidate != Candidate():
            named.append(("best", self._bench.write(best.candidate)))
        held_out = await self._compared(named, parts.held_out, "held-out")
        self._context.progress("judging", 1, 1)
        return Improvement(tried=tried, best=best.candidate, training=(base.rate, best.rate), held_out=held_out)

    async def _compared(
        self, prompts: Sequence[tuple[str, PromptVersion]], cases: Sequence[Case], folder: str
    ) -> Report:
        place = self._context.checkpoints / folder
        await asyncio.to_thread(place.mkdir, parents=True, exist_ok=True)
        variants = [
            Variant(
                name=name,
                version=version,
                model=self._plan.models[0],
                language=self._bench.language,
                values=self._plan.values,
            )
            for name, version in prompts
        ]
        trials = Trials(variants, cases, self._plan.repeats, place)

        def tick(stage: str, done: int, total: int) -> None:
            del stage, done, total
            self._context.raise_if_cancelled()

        await compare(trials, self._scorers, self._desk, tick)
        return report_of(trials, self._plan.scorers, self._context.settings)


def _write(found: Improvement, bench: Workbench, plan: Plan, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BEST).write_text(bench.write(found.best).source, encoding="utf-8")
    write_json(
        folder / REPORT,
        {
            "kept": found.agrees,
            "changed": found.best != Candidate(),
            "training": {"base": found.training[0], "best": found.training[1]},
            "tried": [
                {
                    "instruction": each.candidate.instruction,
                    "examples": list(each.candidate.examples),
                    "rate": each.rate,
                }
                for each in found.tried
            ],
            "verdict": verdict_lines(found.held_out, plan.report_language),
            "held_out": report_json(found.held_out),
        },
    )
    (folder / PAGE).write_text(page(found.held_out, plan.report_language), encoding="utf-8")
