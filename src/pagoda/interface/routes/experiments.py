"""``/api/v1/experiments``: variants of a model alias or a prompt's label, compared on those who ask."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from starlette.responses import Response

from pagoda.core.types import Call
from pagoda.interface.access import models_of, needs, tenant_of
from pagoda.interface.context import Backstage, Route, backstage, json_response
from pagoda.interface.schemas.experiments import (
    ExperimentList,
    ExperimentObject,
    ExperimentRequest,
    PlanObject,
    PlanRequest,
    RampRequest,
    VerdictObject,
)
from pagoda.interface.schemas.shared import ErrorAnswer
from pagoda.logic.experiments.design import Design, Target, design_from
from pagoda.logic.experiments.view import experiment_json, plan_json, verdict_json
from pagoda.logic.prompts.prompt import PromptReference

router = APIRouter(route_class=Route, tags=["Experiments"])

Stage = Annotated[Backstage, Depends(backstage)]
Reference = Annotated[str, Path(min_length=1, max_length=200)]
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": ErrorAnswer, "description": "There is no such experiment."}}
_STATE: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorAnswer, "description": "Not in the experiment's present state, or the name is taken."}
}


@router.get("/api/v1/experiments", response_model=ExperimentList, summary="List experiments")
@needs("operate")
async def list_experiments(request: Request, stage: Stage) -> Response:
    """The team's experiments, newest first."""
    found = await stage.learning.experiments.find(tenant_of(request))
    return json_response({"object": "list", "data": [experiment_json(each) for each in found]})


@router.post(
    "/api/v1/experiments", response_model=ExperimentObject, responses=_STATE | _MISSING, summary="Create an experiment"
)
@needs("operate")
async def create_experiment(body: ExperimentRequest, request: Request, stage: Stage) -> Response:
    """A draft, or with ``start`` an experiment that runs."""
    team = tenant_of(request)
    target, design = _wanted(body, request, stage)
    await _check_prompt(stage, Call(tenant=team), target, design)
    made = await stage.learning.experiments.create(team, body.name, target, design, body.exposure)
    if body.start:
        made = await stage.learning.experiments.start(team, made.id)
        await stage.learning.roster.refresh()
    return json_response(experiment_json(made))


@router.post("/api/v1/experiments/plan", response_model=PlanObject, summary="Plan an experiment's size")
@needs("inference")
async def plan_experiment(body: PlanRequest) -> Response:
    """How many outcomes it takes to tell a difference."""
    from pagoda.logic.experiments.plan import Question, plan  # noqa: PLC0415  (it brings NumPy)

    return json_response(plan_json(await asyncio.to_thread(plan, Question(**body.model_dump()))))


@router.get(
    "/api/v1/experiments/{experiment}",
    response_model=ExperimentObject,
    responses=_MISSING,
    summary="Show an experiment",
)
@needs("operate")
async def show_experiment(experiment: Reference, request: Request, stage: Stage) -> Response:
    """An experiment by its id or name."""
    return json_response(experiment_json(await stage.learning.experiments.get(tenant_of(request), experiment)))


@router.get(
    "/api/v1/experiments/{experiment}/verdict",
    response_model=VerdictObject,
    responses=_MISSING,
    summary="Judge an experiment",
)
@needs("operate")
async def judge_experiment(experiment: Reference, request: Request, stage: Stage) -> Response:
    """What the outcomes say up to now; looking does no harm, however often."""
    from pagoda.logic.experiments.verdict import look  # noqa: PLC0415  (it brings NumPy)

    await stage.learning.roster.write()
    return json_response(verdict_json(await look(stage.learning.experiments, tenant_of(request), experiment)))


@router.post(
    "/api/v1/experiments/{experiment}/start",
    response_model=ExperimentObject,
    responses=_MISSING | _STATE,
    summary="Start an experiment",
)
@needs("operate")
async def start_experiment(experiment: Reference, request: Request, stage: Stage) -> Response:
    """Let it run; whoever was assigned before keeps the variant."""
    started = await stage.learning.experiments.start(tenant_of(request), experiment)
    await stage.learning.roster.refresh()
    return json_response(experiment_json(started))


@router.post(
    "/api/v1/experiments/{experiment}/stop",
    response_model=ExperimentObject,
    responses=_MISSING | _STATE,
    summary="Stop an experiment",
)
@needs("operate")
async def stop_experiment(experiment: Reference, request: Request, stage: Stage) -> Response:
    """Give everybody the target's own again; outcomes that come later still count."""
    stopped = await stage.learning.experiments.stop(tenant_of(request), experiment)
    await stage.learning.roster.refresh()
    return json_response(experiment_json(stopped))


@router.post(
    "/api/v1/experiments/{experiment}/ramp",
    response_model=ExperimentObject,
    responses=_MISSING | _STATE,
    summary="Open an experiment to more units",
)
@needs("operate")
async def ramp_experiment(experiment: Reference, body: RampRequest, request: Request, stage: Stage) -> Response:
    """Change the share of units that take part; nobody who does is moved."""
    ramped = await stage.learning.experiments.ramp(tenant_of(request), experiment, body.exposure, body.shares)
    await stage.learning.roster.refresh()
    return json_response(experiment_json(ramped))


async def _check_prompt(stage: Backstage, call: Call, target: Target, design: Design) -> None:
    """Raises ``NotFound`` for a label or a version that the prompt does not have."""
    if target.kind == "prompt":
        await stage.prompts.resolve(PromptReference(name=target.name, label=target.label), call)
        for variant in design.variants:
            await stage.prompts.resolve(PromptReference(name=target.name, version=variant.version), call)


def _wanted(body: ExperimentRequest, request: Request, stage: Backstage) -> tuple[Target, Design]:
    """Target and design, with models by their ids. Raises ``NotFound`` for a model that there is not."""
    kind, name = body.target.kind, body.target.name
    if kind == "model":  # it must be there without the experiment too, or stopping would break its callers
        stage.entry(name, "chat", models_of(request))
    label = "" if kind == "model" else body.target.label or "production"
    wanted = body.model_dump(exclude={"name", "target", "exposure", "start"})
    for variant in wanted["variants"]:
        if variant["model"] is not None:
            variant["model"] = stage.entry(variant["model"], "chat", models_of(request)).id
    return Target(kind=kind, name=name, label=label), design_from(wanted)
