"""The service API: short requests and short answers, for programs that want neither roles nor choices."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from pagoda.core.types import Call, Embed, Generation, Sampling
from pagoda.interface.access import models_of, needs
from pagoda.interface.answered import answer_headers
from pagoda.interface.context import Backstage, Route, asked_model, backstage, call_of, json_response
from pagoda.interface.schemas.service import (
    GenerateRequest,
    GenerationRequest,
    ServiceChatRequest,
    ServiceEmbeddingAnswer,
    ServiceEmbeddingRequest,
    TextAnswer,
)
from pagoda.interface.sse import while_connected
from pagoda.logic.inference.answer import collect

router = APIRouter(route_class=Route, tags=["Service"])

Stage = Annotated[Backstage, Depends(backstage)]
TheCall = Annotated[Call, Depends(call_of)]


@router.post("/generate", response_model=TextAnswer, summary="Generate text")
@needs("inference")
async def generate(body: GenerateRequest, request: Request, stage: Stage, call: TheCall) -> Response:
    """Answer a prompt with at most ``max_length`` new tokens."""
    return await _text(request, stage, call, (body.model, body.prompt, body.max_length, body.temperature))


@router.post("/api/v1/generation", response_model=TextAnswer, summary="Generate text")
@needs("inference")
async def generation(body: GenerationRequest, request: Request, stage: Stage, call: TheCall) -> Response:
    """Answer a prompt with at most ``max_tokens`` new tokens."""
    return await _text(request, stage, call, (body.model, body.prompt, body.max_tokens, body.temperature))


@router.post("/api/v1/chat", response_model=TextAnswer, summary="Answer a message")
@needs("inference")
async def chat(body: ServiceChatRequest, request: Request, stage: Stage, call: TheCall) -> Response:
    """Answer one message."""
    return await _text(request, stage, call, (body.model, body.message, body.max_tokens, body.temperature))


@router.post("/api/v1/embedding", response_model=ServiceEmbeddingAnswer, summary="Embed texts")
@needs("inference")
async def embedding(body: ServiceEmbeddingRequest, request: Request, stage: Stage, call: TheCall) -> Response:
    """One vector a text."""
    wanted = Embed(
        model=stage.entry(body.model, "embedding", models_of(request)).id,
        inputs=tuple(body.texts),
        kind=body.input_type,
    )
    answer = await while_connected(request, stage.inference.embed(wanted, call))
    return json_response(
        {"embeddings": answer.floats(), "dimensions": answer.dimensions, "tokens_used": answer.prompt_tokens},
        answer_headers(answer.model, answer.cache),
    )


async def _text(
    request: Request, stage: Backstage, call: Call, asked: tuple[str | None, str, int, float | None]
) -> Response:
    """A chat model answers the text as a message, under its template; a plain model continues it."""
    name, text, length, temperature = asked
    entry = asked_model(stage, request, call, name)
    chats = entry.task == "chat"
    wanted = Generation(
        model=entry.id,
        messages=({"role": "user", "content": text},) if chats else None,
        prompt=None if chats else text,
        max_tokens=length,
        sampling=Sampling(temperature=temperature),
    )
    answer = await while_connected(request, collect(stage.inference, wanted, call))
    return json_response(
        {"response": answer.text, "tokens_used": answer.usage.completion_tokens},
        answer_headers(answer.model, answer.cache),
    )
