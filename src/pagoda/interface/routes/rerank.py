"""``POST /v1/rerank``: documents ordered by how well they answer a query."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from pagoda.core.types import Call, Rerank, new_id
from pagoda.interface.access import models_of, needs
from pagoda.interface.context import Backstage, Route, backstage, call_of, json_response
from pagoda.interface.schemas.rerank import RerankAnswer, RerankRequest
from pagoda.interface.sse import while_connected

router = APIRouter(route_class=Route, tags=["Retrieval"])


@router.post("/v1/rerank", response_model=RerankAnswer, summary="Order documents")
@needs("inference")
async def rerank(
    body: RerankRequest,
    request: Request,
    stage: Annotated[Backstage, Depends(backstage)],
    call: Annotated[Call, Depends(call_of)],
) -> Response:
    """Score each document against the query (by default as similarity of embeddings); best first, ties as given."""
    texts = body.texts()
    wanted = Rerank(
        model=stage.entry(body.model, "embedding", models_of(request)).id, query=body.query, documents=texts
    )
    ranking = await while_connected(request, stage.inference.rerank(wanted, call))
    best = sorted(range(len(texts)), key=lambda place: -ranking.scores[place])[: body.top_n]
    results: list[dict[str, Any]] = [{"index": place, "relevance_score": ranking.scores[place]} for place in best]
    if body.return_documents:
        for row in results:
            row["document"] = {"text": texts[row["index"]]}
    usage = {"prompt_tokens": ranking.prompt_tokens, "total_tokens": ranking.prompt_tokens}
    answer = {"id": new_id("rerank"), "model": ranking.model, "results": results, "usage": usage}
    return json_response(answer, {"X-Pagoda-Model": ranking.model})
