"""The FastAPI application: routes, the perimeter around them, one shape of error, and a complete OpenAPI document."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware.cors import CORSMiddleware

import pagoda
from pagoda.interface.context import Backstage
from pagoda.interface.pages import pages_router
from pagoda.interface.perimeter import Entrance, Limits, Loopback, SubPath
from pagoda.interface.problems import install_problems
from pagoda.interface.routes import chat, completions, embeddings, health, internal, models, runs, service

_DESCRIPTION = """
OpenAI-compatible API and service API of Pagoda. Errors are `{"error": {"message", "type", "param", "code"}}`
everywhere; unknown parameters are refused by name. Headers: `X-Request-Id` (yours is kept), `X-Request-Timeout`
(seconds).
"""


def build_app(stage: Backstage, start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]) -> FastAPI:
    """The application around what stands backstage; ``start`` and ``stop`` run with its lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        await start()
        try:
            yield
        finally:
            await stop()

    server = stage.settings.server
    app = FastAPI(
        title="Pagoda",
        version=pagoda.__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.backstage = stage
    for module in (chat, completions, embeddings, models, service, runs, health, internal):
        app.include_router(module.router)
    app.include_router(pages_router())
    install_problems(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    # The last added is the outermost: every answer, refusals too, has an id and is counted.
    app.add_middleware(Limits, max_body_bytes=server.max_body_bytes)
    if server.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(server.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id", "X-Pagoda-Model", "Retry-After"],
        )
    app.add_middleware(Loopback, origins=server.cors_origins)
    app.add_middleware(Entrance, telemetry=stage.telemetry)
    if server.root_path.strip("/"):
        app.add_middleware(SubPath, root_path=server.root_path)
    return app


_PROBLEMS = {
    "400": "The request is malformed or asks for what cannot be done; `param` names what is wrong.",
    "403": "The caller may not do this.",
    "404": "There is no such model.",
    "413": "The body is too large.",
    "429": "Too many requests; `Retry-After` says when to ask again.",
    "502": "The model's answer breaks its demanded form.",
    "503": "No engine can be reached or started.",
    "504": "The answer was not ready in time.",
}


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with our errors (400 and others, in OpenAI's shape) in place of its own 422."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, servers=app.servers
    )
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
    for path in document["paths"].values():
        for operation in path.values():
            responses = operation["responses"]
            responses.pop("422", None)
            asks_a_model = "requestBody" in operation
            for status, description in _PROBLEMS.items():
                if asks_a_model or (status == "400" and operation.get("parameters")):
                    responses.setdefault(status, {"description": description, "content": error})
    app.openapi_schema = document
    return document
