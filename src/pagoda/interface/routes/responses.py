"""``POST /v1/responses``: OpenAI's newer form of asking for text. Nothing is stored here."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from pagoda.core.ports import Inference
from pagoda.core.types import Call, Generation, OutputFormat, Sampling
from pagoda.interface.access import needs
from pagoda.interface.answered import Answered, answer_stream
from pagoda.interface.context import Backstage, Route, asked_model, backstage, call_of, on_behalf_of
from pagoda.interface.render import reasoning_of
from pagoda.interface.render_responses import Draft, ResponseWriter, response_json
from pagoda.interface.schemas.responses import ResponsesAnswer, ResponsesRequest
from pagoda.interface.sse import streamed, while_connected
from pagoda.logic.inference.answer import collect

router = APIRouter(route_class=Route, tags=["OpenAI"])

_STREAM = streamed("The answer; with `stream: true` as typed server-sent events, the last of which has the usage.")


@router.post(
    "/v1/responses", response_model=ResponsesAnswer, responses=_STREAM, summary="Answer text or a conversation"
)
@needs("inference")
async def responses(
    body: ResponsesRequest,
    request: Request,
    stage: Annotated[Backstage, Depends(backstage)],
    call: Annotated[Call, Depends(call_of)],
) -> Response:
    """Answer with text, streaming or whole."""
    call = on_behalf_of(call, body.user)
    model = asked_model(stage, request, call, body.model).id
    if not body.stream:
        answer = await while_connected(request, answer_response(body, model, stage.inference, call))
        return answer.response()
    events = stage.inference.complete(_generation(body, model), call)
    first = await while_connected(request, anext(events, None))
    frames = ResponseWriter(Draft(body)).frames(events, first)
    return answer_stream(stage, frames, model, first)


async def answer_response(body: ResponsesRequest, model: str, inference: Inference, call: Call) -> Answered:
    """The whole answer to a request."""
    answer = await collect(inference, _generation(body, model), call)
    return Answered(response_json(Draft(body), answer), answer.cache)


def _generation(body: ResponsesRequest, model: str) -> Generation:
    return Generation(
        model=model,
        messages=body.plain(),
        sampling=Sampling(temperature=body.temperature, top_p=body.top_p, top_k=body.top_k, seed=body.seed),
        max_tokens=body.max_output_tokens,
        top_logprobs=(body.top_logprobs or 0) if body.wants_logprobs else None,
        output=_output_of(body),
        toolset=body.toolset(),
        reasoning=reasoning_of(include=body.include_reasoning),
    )


def _output_of(body: ResponsesRequest) -> OutputFormat | None:
    form = body.text.format if body.text is not None else None
    if form is None or form.type == "text":
        return None
    return OutputFormat(kind=form.type, name=form.name, schema=form.schema_)
