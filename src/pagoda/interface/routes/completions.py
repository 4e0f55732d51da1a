"""``POST /v1/completions``: OpenAI's older text completion, of one prompt or many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from pagoda.core.ports import Inference
from pagoda.core.types import Call, Event, Generation, Started, Usage
from pagoda.interface.access import needs
from pagoda.interface.answered import Answered, answer_stream
from pagoda.interface.context import Backstage, Route, asked_model, backstage, call_of, on_behalf_of
from pagoda.interface.render import (
    ChunkWriter,
    completion_json,
    joint_cache_use,
    output_of,
    sampling_of,
    stops_of,
)
from pagoda.interface.routes.chat import STREAM
from pagoda.interface.schemas.completion import CompletionAnswer, CompletionRequest
from pagoda.interface.sse import DONE, while_connected
from pagoda.logic.inference.answer import Answer, collect

router = APIRouter(route_class=Route, tags=["OpenAI"])


@router.post("/v1/completions", response_model=CompletionAnswer, responses=STREAM, summary="Continue text")
@needs("inference")
async def completions(
    body: CompletionRequest,
    request: Request,
    stage: Annotated[Backstage, Depends(backstage)],
    call: Annotated[Call, Depends(call_of)],
) -> Response:
    """Continue each prompt ``n`` times; the choices of prompt ``i`` begin at index ``i * n``."""
    call = on_behalf_of(call, body.user)
    model = asked_model(stage, request, call, body.model).id
    if not body.stream:
        answer = await while_connected(request, answer_completion(body, model, stage.inference, call))
        return answer.response()
    wanted = _generations(body, model)
    include = body.stream_options is not None and body.stream_options.include_usage
    writer = ChunkWriter(chat=False, logprobs=body.logprobs is not None, include_usage=include)
    events = stage.inference.complete(wanted[0], call)
    first = await while_connected(request, anext(events, None))
    frames = _frames(stage, call, wanted, (events, first), writer, echo=bool(body.echo))
    return answer_stream(stage, frames, wanted[0].model, first, alone=len(wanted) == 1)


async def answer_completion(body: CompletionRequest, model: str, inference: Inference, call: Call) -> Answered:
    """The whole answer to a request."""
    wanted = _generations(body, model)
    answers = await asyncio.gather(*(collect(inference, each, call) for each in wanted))
    if body.echo:
        for each, answer in zip(wanted, answers, strict=True):
            _echo(each, answer)
    rendered = completion_json(answers, logprobs=body.logprobs is not None)
    return Answered(rendered, joint_cache_use([answer.cache for answer in answers]))


def _generations(body: CompletionRequest, model: str) -> list[Generation]:
    return [
        Generation(
            model=model,
            prompt=prompt,
            sampling=sampling_of(body),
            max_tokens=body.max_tokens,
            stop=stops_of(body),
            n=body.n or 1,
            top_logprobs=body.logprobs,
            output=output_of(body),
        )
        for prompt in body.prompts()
    ]


def _echo(wanted: Generation, answer: Answer) -> None:
    for choice in answer.choices:
        choice.text = f"{wanted.prompt}{choice.text}"


async def _frames(
    stage: Backstage,
    call: Call,
    wanted: list[Generation],
    begun: tuple[AsyncIterator[Event], Event | None],
    writer: ChunkWriter,
    *,
    echo: bool,
) -> AsyncIterator[bytes]:
    """Frames of all prompts, one after another, with one usage for all at the end."""
    total = Usage(0, 0)
    events, event = begun
    for number, each in enumerate(wanted):
        shift = number * each.n
        if number:
            events = stage.inference.complete(each, call)
            event = await anext(events, None)
        if isinstance(event, Started):
            for block in writer.opening(event, each.n if number == 0 else 0):
                yield block
        if echo:
            for index in range(each.n):
                yield writer.text(index + shift, str(each.prompt))
        async with aclosing(events) as rest:  # type: ignore[type-var]
            async for event in rest:
                if isinstance(event, Usage):
                    total = replace(
                        total,
                        prompt_tokens=total.prompt_tokens + event.prompt_tokens,
                        completion_tokens=total.completion_tokens + event.completion_tokens,
                        cached_tokens=total.cached_tokens + event.cached_tokens,
                    )
                elif (written := writer.event(event, shift)) is not None:
                    yield written
    if (written := writer.event(total)) is not None:
        yield written
    yield DONE
