"""``POST /v1/embeddings``: vectors of texts or token ids."""

from __future__ import annotations

import base64
from array import array
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from pagoda.core.ports import Inference
from pagoda.core.types import Call, Embed
from pagoda.interface.access import models_of, needs
from pagoda.interface.answered import Answered
from pagoda.interface.context import Backstage, Route, backstage, call_of
from pagoda.interface.schemas.embedding import EmbeddingAnswer, EmbeddingRequest
from pagoda.interface.sse import while_connected

router = APIRouter(route_class=Route, tags=["OpenAI"])


@router.post("/v1/embeddings", response_model=EmbeddingAnswer, summary="Embed texts")
@needs("inference")
async def embeddings(
    body: EmbeddingRequest,
    request: Request,
    stage: Annotated[Backstage, Depends(backstage)],
    call: Annotated[Call, Depends(call_of)],
) -> Response:
    """One vector an input, in the inputs' order."""
    model = stage.entry(body.model, "embedding", models_of(request)).id
    answer = await while_connected(request, answer_embedding(body, model, stage.inference, call))
    return answer.response()


async def answer_embedding(body: EmbeddingRequest, model: str, inference: Inference, call: Call) -> Answered:
    """The answer to a request."""
    wanted = Embed(model=model, inputs=body.inputs(), kind=body.input_type, dimensions=body.dimensions)
    answer = await inference.embed(wanted, call)
    if body.encoding_format == "base64":
        shown: list[object] = [base64.b64encode(vector).decode() for vector in answer.vectors]
    else:
        shown = [array("f", vector).tolist() for vector in answer.vectors]
    rendered = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(shown)],
        "model": answer.model,
        "usage": {"prompt_tokens": answer.prompt_tokens, "total_tokens": answer.prompt_tokens},
    }
    return Answered(rendered, answer.cache)
