"""``/api/v1/trust``: how sure one may be of an answer, and what sources say to claims."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from pagoda.core.types import Call
from pagoda.interface.access import models_of, needs
from pagoda.interface.context import Backstage, Route, backstage, call_of, json_response
from pagoda.interface.schemas.shared import ErrorAnswer
from pagoda.interface.schemas.trust import CheckAnswer, CheckRequest, ScoreRequest, SourceText, TrustAnswer, TrustPolicy
from pagoda.interface.sse import while_connected
from pagoda.logic.trust.subject import LOCAL, Source, Subject

if TYPE_CHECKING:
    from pagoda.logic.trust.policy import Policy

router = APIRouter(route_class=Route, tags=["Trust"])

Stage = Annotated[Backstage, Depends(backstage)]
Caller = Annotated[Call, Depends(call_of)]
_MISSING: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorAnswer, "description": "There is no such collection or model."}
}


@router.post("/api/v1/trust/score", response_model=TrustAnswer, responses=_MISSING, summary="Say how sure an answer is")
@needs("inference")
async def score(body: ScoreRequest, request: Request, stage: Stage, call: Caller) -> Response:
    """The calibrated confidence of an answer, its signals, claims and findings, and what the policy made of it."""
    from pagoda.logic.trust.desk import Wish  # noqa: PLC0415  (it brings NumPy)

    subject = Subject(
        question=body.question,
        answer=body.answer,
        sources=_sources(body.sources),
        earlier=tuple(body.earlier),
        model=stage.entry(body.model, "chat", models_of(request)).id,
    )
    wish = Wish(
        judge=_judge(stage, request, body.judge),
        families=tuple(dict.fromkeys(body.families)),
        policy=policy_of(stage, request, body.policy),
        collection=body.collection,
    )
    scored = await while_connected(request, stage.trust.score(subject, call, wish))
    return json_response({"object": "trust.score", **scored.to_json()})


@router.post("/api/v1/trust/check", response_model=CheckAnswer, responses=_MISSING, summary="Check claims")
@needs("inference")
async def check(body: CheckRequest, request: Request, stage: Stage, call: Caller) -> Response:
    """A verdict on each claim, with the characters of the sources that it rests on."""
    options = {"question": body.question, "judge": _judge(stage, request, body.judge)}
    if body.collection is not None:
        work = stage.trust.check_in(body.text(), body.collection, call, **options)
    else:
        work = stage.trust.check(body.text(), _sources(body.sources), call, **options)
    checks = await while_connected(request, work)
    return json_response({"object": "trust.check", "judge": options["judge"], **checks.to_json()})


def policy_of(stage: Backstage, request: Request, given: TrustPolicy) -> Policy:
    """The policy, with the id of the model it names. Raises ``NotFound`` for that, ``InvalidRequest`` otherwise."""
    from pagoda.logic.trust.policy import Policy  # noqa: PLC0415

    model = "" if given.model is None else stage.entry(given.model, "chat", models_of(request)).id
    return Policy(threshold=given.threshold, action=given.below, model=model)


def _judge(stage: Backstage, request: Request, name: str) -> str:
    return LOCAL if name == LOCAL else stage.entry(name, "chat", models_of(request)).id


def _sources(given: list[SourceText]) -> tuple[Source, ...]:
    return tuple(Source(name=each.name, text=each.text) for each in given)
