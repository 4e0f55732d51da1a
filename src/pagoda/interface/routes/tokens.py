"""``POST /tokenize`` and ``/detokenize``: a model's own tokens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from pagoda.core.types import Call, Detokenize, Tokenize
from pagoda.interface.access import models_of, needs
from pagoda.interface.context import Backstage, Route, backstage, call_of, json_response
from pagoda.interface.schemas.tokens import DetokenizeAnswer, DetokenizeRequest, TokenizeAnswer, TokenizeRequest
from pagoda.interface.sse import while_connected

router = APIRouter(route_class=Route, tags=["Tokens"])

Stage = Annotated[Backstage, Depends(backstage)]
TheCall = Annotated[Call, Depends(call_of)]


@router.post("/tokenize", response_model=TokenizeAnswer, summary="Text to tokens")
@needs("inference")
async def tokenize(body: TokenizeRequest, request: Request, stage: Stage, call: TheCall) -> Response:
    """Token ids of a text, or of a conversation under the model's chat template."""
    wanted = Tokenize(
        model=stage.entry(body.model, "chat", models_of(request)).id,
        text=body.prompt if body.text is None else body.text,
        messages=None if body.messages is None else tuple(message.plain() for message in body.messages),
        continue_final=body.continue_final_message,
        special=body.messages is None and body.add_special_tokens is not False,
        pieces=bool(body.return_token_strs),
    )
    tokens = await while_connected(request, stage.inference.tokenize(wanted, call))
    answer = {
        "count": len(tokens.ids),
        "max_model_len": tokens.context,
        "tokens": tokens.ids,
        "token_strs": tokens.pieces,
    }
    return json_response(answer, {"X-Pagoda-Model": tokens.model})


@router.post("/detokenize", response_model=DetokenizeAnswer, summary="Tokens to text")
@needs("inference")
async def detokenize(body: DetokenizeRequest, request: Request, stage: Stage, call: TheCall) -> Response:
    """The text of token ids."""
    wanted = Detokenize(model=stage.entry(body.model, "chat", models_of(request)).id, ids=tuple(body.tokens))
    text = await while_connected(request, stage.inference.detokenize(wanted, call))
    return json_response({"prompt": text.text}, {"X-Pagoda-Model": text.model})
