"""The least that FastAPI and aiohttp can do as a gateway: a body in, the same body out."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import orjson
from fastapi import FastAPI, Request, Response
from starlette.responses import StreamingResponse


@asynccontextmanager
async def _session(app: FastAPI) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        app.state.session = session
        yield


app = FastAPI(lifespan=_session)
_URL = os.environ.get("UPSTREAM", "") + "/v1/chat/completions"
_JSON = {"Content-Type": "application/json"}


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    """Pass it on."""
    raw = await request.body()
    session: aiohttp.ClientSession = app.state.session
    if not orjson.loads(raw).get("stream"):
        async with session.post(_URL, data=raw, headers=_JSON) as answer:
            return Response(await answer.read(), media_type="application/json")

    async def blocks() -> AsyncIterator[bytes]:
        async with session.post(_URL, data=raw, headers=_JSON) as answer:
            async for block in answer.content.iter_any():
                yield block

    return StreamingResponse(blocks(), media_type="text/event-stream")
