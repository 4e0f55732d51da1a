"""``/api/v1/feedback``: what people say of answers, and training data made of it."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from pagoda.core.errors import InvalidRequest
from pagoda.interface.access import author_of, needs, tenant_of
from pagoda.interface.context import Backstage, Route, backstage, json_response
from pagoda.interface.schemas.feedback import FeedbackAnswer, FeedbackList, FeedbackRequest
from pagoda.interface.schemas.shared import ErrorAnswer
from pagoda.logic.feedback.saying import About, Saying

router = APIRouter(route_class=Route, tags=["Feedback"])

Stage = Annotated[Backstage, Depends(backstage)]
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorAnswer, "description": "There is no such request, experiment or unit."},
    409: {"model": ErrorAnswer, "description": "The same author said something else before."},
}
LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One JSON object a line; `X-Without-Text` counts what nobody kept the text of.",
        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
    }
}


@router.post(
    "/api/v1/feedback", response_model=FeedbackAnswer, responses=_PROBLEMS, summary="Say something of an answer"
)
@needs("inference")
async def give_feedback(body: FeedbackRequest, request: Request, stage: Stage) -> Response:
    """A thumb, a score, words, a better answer, outcomes; the same again changes nothing."""
    from pagoda.logic.feedback.book import feedback_json  # noqa: PLC0415  (it brings the database)

    if body.request_id is not None and body.completion_id is not None:
        raise InvalidRequest("Give request_id or completion_id, not both.", param="completion_id")
    about = About(request=body.request_id or body.completion_id, experiment=body.experiment, unit=body.unit)
    saying = Saying(
        thumb=body.thumb,
        score=body.score,
        text=body.text,
        correction=body.correction,
        metrics=body.metrics,
        messages=None if body.messages is None else [message.plain() for message in body.messages],
        answer=body.answer,
    )
    team, author = tenant_of(request), body.user or author_of(request)
    given = await stage.learning.feedback.give(team, author, about, saying, replace=body.replace)
    review = await stage.learning.complaints.follow(team, given.record)
    return json_response(
        feedback_json(given.record)
        | {
            "repeated": given.repeated,
            "experiments": list(given.counted),
            "review": None if review is None else review.record.id,
        }
    )


@router.get("/api/v1/feedback", response_model=FeedbackList, summary="List feedback")
@needs("operate")
async def list_feedback(
    request: Request,
    stage: Stage,
    about: Annotated[str | None, Query(max_length=200, description="Id of a request or of its answer.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """The team's feedback, newest first."""
    from pagoda.logic.feedback.book import feedback_json  # noqa: PLC0415

    found = await stage.learning.feedback.find(tenant_of(request), limit=limit, request=about)
    return json_response({"object": "list", "data": [feedback_json(record) for record in found]})


@router.get(
    "/api/v1/feedback/export", response_class=Response, responses=LINES, summary="Training data of feedback and reviews"
)
@needs("operate")
async def export_feedback(
    request: Request, stage: Stage, form: Annotated[str, Query(pattern="^(sft|preference)$")] = "sft"
) -> Response:
    """Corrections, edits and approved answers as JSON lines: `sft` to imitate, `preference` as better and worse."""
    from pagoda.logic.feedback.training import export  # noqa: PLC0415

    learning = stage.learning
    found = await export(learning.feedback, learning.reviews, tenant_of(request), form)  # type: ignore[arg-type]
    body = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in found.rows)
    return Response(body, media_type="application/x-ndjson", headers={"X-Without-Text": str(found.without_text)})
