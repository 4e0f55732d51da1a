"""``POST /v1/chat/completions``: OpenAI's chat, streaming or whole."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from pagoda.core.ports import Inference
from pagoda.core.types import Call, Generation
from pagoda.interface.access import models_of, needs
from pagoda.interface.answered import Answered, answer_stream
from pagoda.interface.context import Backstage, Route, asked_model, backstage, call_of, on_behalf_of
from pagoda.interface.prompted import PROMPT_HEADER, with_prompt
from pagoda.interface.render import ChunkWriter, chat_json, output_of, reasoning_of, sampling_of, stops_of
from pagoda.interface.schemas.chat import ChatAnswer, ChatRequest
from pagoda.interface.sse import streamed, while_connected
from pagoda.logic.inference.answer import collect
from pagoda.logic.quality.rules import last_words
from pagoda.logic.trust.subject import Subject

router = APIRouter(route_class=Route, tags=["OpenAI"])

STREAM = streamed("The answer; with `stream: true` as server-sent events that end with `[DONE]`.")


@router.post("/v1/chat/completions", response_model=ChatAnswer, responses=STREAM, summary="Answer a conversation")
@needs("inference")
async def chat(
    body: ChatRequest,
    request: Request,
    stage: Annotated[Backstage, Depends(backstage)],
    call: Annotated[Call, Depends(call_of)],
) -> Response:
    """Answer a conversation with text, streaming or whole."""
    call = on_behalf_of(call, body.user)
    if body.prompt is not None:
        find = lambda name: stage.entry(name, "chat", models_of(request)).id  # noqa: E731
        body, call = await while_connected(
            request, with_prompt(body, body.prompt, call, stage.prompts, (stage.composer, find))
        )
    model = asked_model(stage, request, call, body.model).id
    if not body.stream:
        work = (
            answer_surely(body, model, stage, call) if body.trust else answer_chat(body, model, stage.inference, call)
        )
        answer = await while_connected(request, work)
        return _told(answer.response(), call)
    wanted = _generation(body, model)
    include = body.stream_options is not None and body.stream_options.include_usage
    writer = ChunkWriter(chat=True, logprobs=bool(body.logprobs), include_usage=include, older_calls=body.older_calls)
    events = stage.inference.complete(wanted, call)
    first = await while_connected(request, anext(events, None))
    frames = writer.frames(events, first, wanted.n)
    return _told(answer_stream(stage, frames, wanted.model, first), call)


async def answer_chat(body: ChatRequest, model: str, inference: Inference, call: Call) -> Answered:
    """The whole answer to a request."""
    answer = await collect(inference, _generation(body, model), call)
    told = chat_json(answer, logprobs=bool(body.logprobs), older_calls=body.older_calls)
    return Answered(told, answer.cache)


async def answer_surely(body: ChatRequest, model: str, stage: Backstage, call: Call) -> Answered:
    """The whole answer, with how sure one may be of it; calls of tools are no answer that could be looked at."""
    answered = await answer_chat(body, model, stage.inference, call)
    text = answered.body["choices"][0]["message"].get("content")
    if text:
        told = [message.plain() for message in body.messages]
        subject = Subject(
            question=last_words({"messages": told}),
            answer=text,
            earlier=tuple(last_words({"messages": [each]}) for each in told[:-1] if each["role"] == "assistant"),
            model=answered.body["model"],
        )
        answered.body["trust"] = (await stage.trust.score(subject, call)).to_json()
    return answered


def _told(response: Response, call: Call) -> Response:
    """The response, with the version of the prompt that was asked for by name."""
    if call.prompt is not None:
        response.headers[PROMPT_HEADER] = call.prompt
    return response


def _generation(body: ChatRequest, model: str) -> Generation:
    return Generation(
        model=model,
        messages=tuple(message.plain() for message in body.messages),
        sampling=sampling_of(body),
        max_tokens=body.max_completion_tokens or body.max_tokens,
        stop=stops_of(body),
        n=body.n or 1,
        top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        output=output_of(body),
        continue_final=body.continue_final_message,
        reasoning=reasoning_of(include=body.include_reasoning, form=body.reasoning_format),
        toolset=body.toolset(),
    )
