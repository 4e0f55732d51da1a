"""``POST /v1/messages`` and ``/v1/messages/count_tokens``: Anthropic's form of asking for text."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from pagoda.core.types import Call, Generation, OutputFormat, Sampling, Tokenize
from pagoda.interface.access import models_of, needs
from pagoda.interface.answered import answer_headers, answer_stream
from pagoda.interface.context import Backstage, Route, asked_model, backstage, call_of, json_response, on_behalf_of
from pagoda.interface.render_messages import STYLE, MessageWriter, message_json
from pagoda.interface.schemas.messages import (
    CountAnswer,
    CountRequest,
    MessagesAnswer,
    MessagesProblem,
    MessagesRequest,
)
from pagoda.interface.sse import streamed, while_connected
from pagoda.logic.inference.answer import collect

router = APIRouter(route_class=Route, tags=["Anthropic"])

Stage = Annotated[Backstage, Depends(backstage)]
TheCall = Annotated[Call, Depends(call_of)]

_STREAM = streamed("The answer; with `stream: true` as typed server-sent events that end with `message_stop`.")
_PROBLEM: dict[int | str, dict[str, Any]] = {
    400: {"model": MessagesProblem, "description": "The request is malformed or asks for what cannot be done."}
}


@router.post(
    "/v1/messages", response_model=MessagesAnswer, responses=_STREAM | _PROBLEM, summary="Answer a conversation"
)
@needs("inference")
async def messages(body: MessagesRequest, request: Request, stage: Stage, call: TheCall) -> Response:
    """Answer a conversation, or continue its last message if that is the assistant's."""
    call = on_behalf_of(call, body.metadata.user_id if body.metadata else None)
    wanted = _generation(body, asked_model(stage, request, call, body.model).id)
    warnings = _warnings(body)
    if not body.stream:
        answer = await while_connected(request, collect(stage.inference, wanted, call))
        return json_response(message_json(answer, warnings), answer_headers(answer.model, answer.cache))
    events = stage.inference.complete(wanted, call)
    first = await while_connected(request, anext(events, None))
    frames = MessageWriter(warnings).frames(events, first)
    return answer_stream(stage, frames, wanted.model, first, STYLE)


@router.post(
    "/v1/messages/count_tokens", response_model=CountAnswer, responses=_PROBLEM, summary="Count a conversation's tokens"
)
@needs("inference")
async def count_tokens(body: CountRequest, request: Request, stage: Stage, call: TheCall) -> Response:
    """The tokens of the conversation under the model's chat template."""
    model = stage.entry(body.model, "chat", models_of(request)).id
    wanted = Tokenize(model=model, messages=body.plain(), continue_final=body.prefilled)
    tokens = await while_connected(request, stage.inference.tokenize(wanted, call))
    return json_response({"input_tokens": len(tokens.ids)}, {"X-Pagoda-Model": tokens.model})


def _generation(body: MessagesRequest, model: str) -> Generation:
    form = body.output_config.format if body.output_config is not None else None
    return Generation(
        model=model,
        messages=body.plain(),
        sampling=Sampling(temperature=body.temperature, top_p=body.top_p, top_k=body.top_k),
        max_tokens=body.max_tokens,
        stop=tuple(body.stop_sequences or ()),
        output=None if form is None else OutputFormat(kind="json_schema", schema=form.schema_),
        continue_final=body.prefilled,
        toolset=body.toolset(),
        reasoning="separate" if body.shows_thinking else "hidden",
    )


def _warnings(body: MessagesRequest) -> tuple[str, ...]:
    if body.thinking is None or body.thinking.budget_tokens is None:
        return ()
    return ("thinking.budget_tokens is not enforced; max_tokens bounds thinking and answer together.",)
