"""What the HTTP servers of our own engine processes share: who is let in, how errors are told, embeddings and tokens.

OpenAI's forms, and llama.cpp's for tokens.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import orjson
from aiohttp import web

from pagoda.core.errors import ContextTooLong, InvalidRequest, NotFound, PagodaError

_LARGEST_BODY = 64 * 1024 * 1024


class Embeds(Protocol):
    """A model with its tokenizer."""

    embeds: bool
    context: int

    @property
    def size(self) -> int:
        """Tokens of the vocabulary."""
        ...

    def ids_of(self, texts: Sequence[str], *, special: bool, parse: bool) -> list[list[int]]:
        """Token ids of each text; ``special`` adds what begins and ends it, ``parse`` reads such in it. Blocks."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens."""
        ...

    async def embed(self, inputs: Sequence[Sequence[int]]) -> list[bytes]:
        """Vectors of token ids."""
        ...


_KEY = web.AppKey("key", str)
_MODEL: web.AppKey[Embeds] = web.AppKey("model", Embeds)


def open_app(model: Embeds, key: str) -> web.Application:
    """An application that answers only ``key``, with what all such models answer."""
    app = web.Application(middlewares=[_refusals], client_max_size=_LARGEST_BODY)
    app[_KEY] = key
    app[_MODEL] = model
    app.router.add_get("/v1/models", _models)
    app.router.add_post("/v1/embeddings", _embed)
    app.router.add_post("/tokenize", _tokenize)
    app.router.add_post("/detokenize", _detokenize)
    return app


async def listen(app: web.Application) -> str:
    """Serve it on a free loopback port; gives the address."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


@web.middleware
async def _refusals(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Nobody but the parent is answered; our errors become OpenAI's."""
    if request.headers.get("Authorization") != f"Bearer {request.app[_KEY]}":
        return _refusal(401, "Invalid API key", "unauthorized", None)
    try:
        return await handler(request)
    except ContextTooLong as error:
        message = f"The prompt has {error.tokens} tokens; the context holds {error.limit}."
        return _refusal(400, message, error.code, error.param)
    except PagodaError as error:
        return _refusal(404 if isinstance(error, NotFound) else 400, error.message, error.code, error.param)


def _refusal(status: int, message: str, code: str, param: str | None) -> web.Response:
    return web.json_response({"error": {"message": message, "code": code, "param": param}}, status=status)


async def _models(request: web.Request) -> web.Response:
    del request
    return web.json_response({"object": "list", "data": [{"id": "model", "object": "model"}]})


async def _embed(request: web.Request) -> web.Response:
    model, body = request.app[_MODEL], await request.json(loads=orjson.loads)
    if not model.embeds:
        raise InvalidRequest("This model gives no embeddings.", param="model")
    given = [body["input"]] if isinstance(body["input"], str) else body["input"]
    texts = [item for item in given if isinstance(item, str)]
    told = iter(await asyncio.to_thread(model.ids_of, texts, special=True, parse=True))
    inputs = [next(told) if isinstance(item, str) else list(item) for item in given]
    for ids in inputs:
        if not ids:
            raise InvalidRequest("An input is empty.", param="input")
        if len(ids) > model.context:
            raise ContextTooLong(len(ids), model.context, param="input")
        _check_ids(model, ids, "input")
    vectors = await model.embed(inputs)
    rows = [{"index": at, "embedding": base64.b64encode(vector).decode()} for at, vector in enumerate(vectors)]
    size = sum(map(len, inputs))
    return web.json_response({"data": rows, "usage": {"prompt_tokens": size, "total_tokens": size}}, dumps=_dump)


async def _tokenize(request: web.Request) -> web.Response:
    model, body = request.app[_MODEL], await request.json(loads=orjson.loads)
    special, parse = bool(body.get("add_special")), bool(body.get("parse_special", True))
    ids = (await asyncio.to_thread(model.ids_of, [body["content"]], special=special, parse=parse))[0]
    pieces = [model.decode([id]) for id in ids] if body.get("pieces") else None
    return web.json_response({"tokens": ids, "pieces": pieces})


async def _detokenize(request: web.Request) -> web.Response:
    model, body = request.app[_MODEL], await request.json(loads=orjson.loads)
    _check_ids(model, body["tokens"], "tokens")
    return web.json_response({"content": model.decode(body["tokens"])})


def _check_ids(model: Embeds, ids: Sequence[int], param: str) -> None:
    if wrong := [id for id in ids if not 0 <= id < model.size]:
        raise InvalidRequest(f"{wrong[0]} is not in the model's vocabulary of {model.size} tokens.", param=param)


def _dump(payload: object) -> str:
    return orjson.dumps(payload).decode()
