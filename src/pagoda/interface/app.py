"""The FastAPI application: routes, the perimeter around them, one shape of error, and a complete OpenAPI document."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route as StarletteRoute

import pagoda
from pagoda.interface.access import SECURITY_SCHEMES, Access, public
from pagoda.interface.context import Backstage
from pagoda.interface.express import Express
from pagoda.interface.journal import Journal
from pagoda.interface.pages import pages_router
from pagoda.interface.perimeter import Entrance, Limits, Loopback, SubPath
from pagoda.interface.problems import install_problems, is_anthropic
from pagoda.interface.routes import (
    agents,
    batches,
    cache,
    chat,
    completions,
    drain,
    embeddings,
    experiments,
    feedback,
    files,
    health,
    internal,
    keys,
    logs,
    mcp,
    memory,
    messages,
    models,
    pools,
    prompts,
    rag,
    rerank,
    responses,
    reviews,
    runs,
    service,
    tokens,
    trust,
    usage,
)
from pagoda.interface.turnstile import Turnstile

RATE_HEADERS = [
    f"x-ratelimit-{word}-{what}" for what in ("requests", "tokens") for word in ("limit", "remaining", "reset")
]
_DESCRIPTION = """
OpenAI-compatible API and service API of Pagoda. Errors are `{"error": {"message", "type", "param", "code"}}`
everywhere; unknown parameters are refused by name. Headers: `X-Request-Id` (yours is kept), `X-Request-Timeout`
(seconds), `X-Request-Priority` (`interactive`, `normal`, `batch`, or a number: smaller is sooner), `Cache-Control`
(what the response cache may do; `X-Cache` says what it did), `X-Experiment-Unit` (whom experiments assign).
"""

_ROUTES = (
    chat,
    responses,
    completions,
    embeddings,
    models,
    memory,
    messages,
    rerank,
    trust,
    tokens,
    files,
    batches,
    agents,
    mcp,
    service,
    runs,
    cache,
    pools,
    prompts,
    rag,
    keys,
    drain,
    usage,
    logs,
    experiments,
    feedback,
    reviews,
    health,
    internal,
)


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
    told: dict[str, Any] = {"title": "Pagoda", "version": pagoda.__version__, "description": _DESCRIPTION}
    # The framework tells of requests by itself, too, and looks whether it should at each: a twentieth of its time.
    told["telemetry"] = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
    app = FastAPI(**told, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.backstage = stage
    app.state.access = access = Access(stage.keys, server.trusted_proxies, stage.telemetry)
    for module in _ROUTES:
        app.include_router(module.router)
    app.include_router(pages_router())
    install_problems(app)
    _offer_document(app)
    # The last added is the outermost: every answer, refusals too, has an id and is counted.
    short_way = [module.router for module in (chat, responses, completions, embeddings, messages, service)]
    app.add_middleware(Express, routers=short_way, stage=stage, access=access)
    app.add_middleware(Limits, max_body_bytes=server.max_body_bytes, max_file_bytes=server.max_file_bytes)
    if server.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(server.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=[
                "X-Request-Id",
                "X-Pagoda-Model",
                "X-Pagoda-Prompt",
                "X-Cache",
                "Retry-After",
                *RATE_HEADERS,
            ],
        )
    app.add_middleware(Loopback, origins=server.cors_origins, keyless=lambda: not stage.keys.required)
    app.add_middleware(Turnstile, gate=stage.gate)
    log, write = stage.settings.log, stage.write_line
    journal = Journal(log, write) if write is not None and log.access != "off" else None
    app.add_middleware(Entrance, telemetry=stage.telemetry, journal=journal)
    if server.root_path.strip("/"):
        app.add_middleware(SubPath, root_path=server.root_path)
    return app


_PROBLEMS = {
    "400": "The request is malformed or asks for what cannot be done; `param` names what is wrong.",
    "401": "The request needs a key, or a key that is known here.",
    "403": "The caller may not do this.",
    "404": "There is no such model.",
    "413": "The body is too large.",
    "429": "Too many requests; `Retry-After` says when to ask again.",
    "502": "The model's answer breaks its demanded form.",
    "503": "No engine can be reached or started.",
    "504": "The answer was not ready in time.",
}


_ABOUT_KEYS = ("401", "403", "429", "503")


def _offer_document(app: FastAPI) -> None:
    """Our document at FastAPI's route, for everybody: it tells nothing of this service but what it could be asked."""
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    for route in app.routes:
        if isinstance(route, StarletteRoute) and route.path == app.openapi_url:
            public(route.endpoint)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with our errors (400 and others, in OpenAI's shape) in place of its own 422."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, servers=app.servers
    )
    schemas = document["components"]["schemas"]
    document["components"]["securitySchemes"] = SECURITY_SCHEMES
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path, operations in document["paths"].items():
        form = "MessagesProblem" if is_anthropic(path) else "ErrorAnswer"
        error = {"application/json": {"schema": {"$ref": f"#/components/schemas/{form}"}}}
        for operation in operations.values():
            responses = operation["responses"]
            responses.pop("422", None)
            asks_a_model = "requestBody" in operation
            needs_a_key = "security" in operation
            for status, description in _PROBLEMS.items():
                if (
                    asks_a_model
                    or (needs_a_key and status in _ABOUT_KEYS)
                    or (status == "400" and operation.get("parameters"))
                ):
                    responses.setdefault(status, {"description": description, "content": error})
    app.openapi_schema = document
    return document
