"""``/api/v1/reviews``: answers that people look at, who claimed them, and how far they agree."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from pagoda.core.errors import Conflict, SafetyError
from pagoda.core.types import Call
from pagoda.interface.access import needs, tenant_of
from pagoda.interface.context import Backstage, Route, backstage, call_of, json_response
from pagoda.interface.schemas.reviews import (
    AgreementObject,
    ClaimAnswer,
    ClaimRequest,
    HeldAnswer,
    ReviewList,
    ReviewObject,
    ReviewRequest,
    RulingRequest,
)
from pagoda.interface.schemas.shared import ErrorAnswer
from pagoda.logic.reviews.words import Reason, State
from pagoda.service.note import request_of

router = APIRouter(route_class=Route, tags=["Reviews"])

Stage = Annotated[Backstage, Depends(backstage)]
Reference = Annotated[str, Path(min_length=1, max_length=200)]
_MISSING: dict[int | str, dict[str, Any]] = {404: {"model": ErrorAnswer, "description": "There is no such review."}}
_STATE: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorAnswer, "description": "Claimed by others, decided, or judged by this reviewer already."}
}


@router.get("/api/v1/reviews", response_model=ReviewList, summary="List reviews")
@needs("operate")
async def list_reviews(
    request: Request,
    stage: Stage,
    state: State | None = None,
    reason: Reason | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """The team's reviews; those that waited longest come first."""
    from pagoda.logic.reviews.view import review_json  # noqa: PLC0415  (it brings the database)

    found = await stage.learning.reviews.find(tenant_of(request), state=state, reason=reason, limit=limit)
    return json_response({"object": "list", "data": [review_json(review) for review in found]})


@router.post("/api/v1/reviews", response_model=ReviewObject, summary="Queue an answer for review")
@needs("inference")
async def enter_review(body: ReviewRequest, request: Request, stage: Stage) -> Response:
    """Put an answer into the queue; one that is there gets one more reason."""
    from pagoda.logic.reviews.book import Item  # noqa: PLC0415
    from pagoda.logic.reviews.view import review_json  # noqa: PLC0415

    item = Item(
        team=tenant_of(request),
        request_id=request_of(body.request_id),
        reason=body.reason,
        detail=body.detail,
        needed=stage.settings.reviews.reviewers,
        model=body.model,
        prompt=None if body.messages is None else {"messages": [message.plain() for message in body.messages]},
        answer=body.answer,
    )
    return json_response(review_json(await stage.learning.reviews.enter(item)))


@router.post("/api/v1/reviews/claim", response_model=ClaimAnswer, responses=_MISSING | _STATE, summary="Claim a review")
@needs("operate")
async def claim_review(body: ClaimRequest, request: Request, stage: Stage) -> Response:
    """Get an answer to review, which others leave alone until the claim ends."""
    from pagoda.logic.reviews.view import review_json  # noqa: PLC0415

    seconds = body.seconds or stage.settings.reviews.claim_seconds
    found = await stage.learning.reviews.claim(tenant_of(request), body.reviewer, seconds, body.review)
    return json_response({"review": None if found is None else review_json(found)})


@router.get("/api/v1/reviews/agreement", response_model=AgreementObject, summary="Show how far reviewers agree")
@needs("operate")
async def show_agreement(request: Request, stage: Stage) -> Response:
    """Krippendorff's alpha over all, Cohen's kappa of each pair, and judging models beside people."""
    from pagoda.logic.reviews.standing import standing  # noqa: PLC0415
    from pagoda.logic.reviews.view import standing_json  # noqa: PLC0415

    return json_response(standing_json(standing(await stage.learning.reviews.judged(tenant_of(request)))))


@router.get("/api/v1/reviews/{review}", response_model=ReviewObject, responses=_MISSING, summary="Show a review")
@needs("operate")
async def show_review(review: Reference, request: Request, stage: Stage) -> Response:
    """An answer, why it is here, and what was said of it."""
    from pagoda.logic.reviews.view import review_json  # noqa: PLC0415

    return json_response(review_json(await stage.learning.reviews.get(tenant_of(request), review)))


@router.post(
    "/api/v1/reviews/{review}/decide",
    response_model=ReviewObject,
    responses=_MISSING | _STATE,
    summary="Approve, edit or reject an answer",
)
@needs("operate")
async def decide_review(
    review: Reference,
    body: RulingRequest,
    request: Request,
    stage: Stage,
    call: Annotated[Call, Depends(call_of)],
) -> Response:
    """Say what is to become of an answer; where as many disagree as agree one more person is asked.

    An agent's call that was waiting for this is made, or refused, and its run goes on.
    """
    from pagoda.logic.reviews.book import Ruling  # noqa: PLC0415
    from pagoda.logic.reviews.view import review_json  # noqa: PLC0415

    ruling = Ruling(decision=body.decision, reason=body.reason, edited=body.edited)
    tenant = tenant_of(request)
    found = await stage.learning.reviews.decide(tenant, review, body.reviewer, ruling)
    if "approval" in found.record.reasons:
        agents = await stage.desk.agents()
        run_id = await agents.follow_review(found, body.reviewer, tenant=tenant)
        if run_id is not None and not await agents.waits(run_id):
            with contextlib.suppress(Conflict):  # it is over, or somebody goes on with it
                await agents.resume(run_id, replace(call, deadline=None), tenant=tenant)
    return json_response(review_json(found))


@router.get(
    "/api/v1/reviews/{review}/answer",
    response_model=HeldAnswer,
    responses=_MISSING | _STATE,
    summary="Get an answer that was held back",
)
@needs("inference")
async def held_answer(review: Reference, request: Request, stage: Stage) -> Response:
    """The answer as people left it, once they have."""
    found = await stage.learning.reviews.get(tenant_of(request), review)
    if found.record.state == "waiting":
        raise Conflict("Nobody has decided on this answer yet; ask again later.", code="review_waiting")
    if found.final is None:
        raise SafetyError("This answer was rejected; ask anew, or otherwise.", code="answer_rejected")
    return json_response({"review": found.record.id, "state": found.record.state, "answer": found.final})
