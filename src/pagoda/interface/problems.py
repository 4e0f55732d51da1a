"""Errors as clients see them: the only place that knows HTTP status codes.

They have OpenAI's shape, under ``/v1/messages`` Anthropic's.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from pagoda.core import errors

logger = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[errors.PagodaError], int], ...] = (
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.Unauthenticated, 401),
    (errors.Forbidden, 403),
    (errors.TooLarge, 413),
    (errors.LimitExceeded, 429),
    (errors.ContextTooLong, 400),
    (errors.SafetyError, 400),
    (errors.Rejected, 400),
    (errors.UserError, 400),
    (errors.Overloaded, 429),
    (errors.ModelTimeout, 504),
    (errors.BadOutput, 502),
    (errors.ToolError, 502),
    (errors.Unavailable, 503),
    (errors.StoreError, 503),
)
_ANTHROPIC_ROUTES = ("/v1/messages", "/v1/messages/count_tokens")
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
QUOTA = "insufficient_quota"
UNSUPPORTED = frozenset(
    {"tools", "tool_choice", "parallel_tool_calls", "audio", "prediction", "suffix"}
    | {"reasoning_effort", "verbosity", "web_search_options", "tool_calls", "tool_call_id"}
    | {"effort", "container", "mcp_servers", "context_management", "inference_geo", "max_tool_calls", "moderation"}
    | {"prompt_cache_retention", "prompt_cache_options"}
)
"""OpenAI's parameters that no engine here can honour yet: refused by name instead of called unknown."""


def status_of(error: errors.PagodaError) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def body_of(error: errors.PagodaError) -> dict[str, Any]:
    """OpenAI's error object for an error."""
    return shape(status_of(error), error.message, error.code, error.param)


def is_anthropic(path: str) -> bool:
    """Whether the clients of a path expect Anthropic's form."""
    return path.endswith(_ANTHROPIC_ROUTES)


def anthropic_shape(status: int, message: str) -> dict[str, Any]:
    """Anthropic's error object."""
    kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def shape(status: int, message: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error object."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    if code == QUOTA:  # OpenAI's own name for a type of its own
        kind = QUOTA
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def refusal(path: str, status: int, message: str, code: str | None, param: str | None = None) -> Response:
    """A response that holds an error, in the form that clients of the path expect."""
    body = anthropic_shape(status, message) if is_anthropic(path) else shape(status, message, code, param)
    return Response(orjson.dumps(body), status, media_type="application/json")


def problem(path: str, error: errors.PagodaError | RequestValidationError) -> Response:
    """The response to an error that is the caller's, the model's or a store's."""
    if isinstance(error, RequestValidationError):
        return refusal(path, 400, *explain(error.errors()))
    response = refusal(path, status_of(error), error.message, error.code, error.param)
    if error.retryable and response.status_code in (429, 503):
        wait = error.retry_after if isinstance(error, (errors.ModelError, errors.LimitExceeded)) else None
        response.headers["Retry-After"] = str(math.ceil(wait or 1))
    elif response.status_code == 429:
        response.headers["x-should-retry"] = "false"  # OpenAI's clients would ask again at once
    if response.status_code == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def install_problems(app: FastAPI) -> None:
    """Draw every error of the application in one shape."""

    @app.exception_handler(errors.PagodaError)
    async def on_pagoda(request: Request, error: errors.PagodaError) -> Response:
        return problem(request.url.path, error)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        return problem(request.url.path, error)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        message = {404: f"There is no {request.url.path} here.", 405: f"{request.method} is not allowed here."}
        path = request.url.path
        response = refusal(path, error.status_code, message.get(error.status_code, str(error.detail)), None)
        response.headers.update(error.headers or {})
        if error.status_code == 405:  # Starlette names those of the first route with this path alone
            response.headers["Allow"] = ", ".join(_methods(request))
        return response

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> Response:
        logger.error("unexpected error at %s", request.url.path, exc_info=error)
        return refusal(request.url.path, 500, "Pagoda failed unexpectedly; its log says more.", "internal_error")


def _methods(request: Request) -> list[str]:
    """The methods that a path takes, over all routes that are written as the one it belongs to is."""
    found = [route for route in _routes(request.app.routes) if route.matches(request.scope)[0] != Match.NONE]
    same = [route for route in found if getattr(route, "path", None) == getattr(found[0], "path", None)]
    return sorted({method for route in same for method in getattr(route, "methods", None) or ()})


def _routes(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """All routes, those of included routers too (FastAPI keeps each as one, which takes no methods itself)."""
    for route in routes:
        router = getattr(route, "original_router", None)
        if router is None:
            yield route
        else:
            yield from _routes(router.routes)


def explain(problems: Sequence[Any]) -> tuple[str, str, str | None]:
    """A sentence, a code and the parameter for the most telling of pydantic's findings."""
    first = max(problems, key=lambda problem: (problem["type"] == "extra_forbidden", _depth(problem)))
    place = [str(part) for part in first["loc"] if part not in ("body",) and not _is_branch(part)]
    param = ".".join(place) or None
    root = place[0] if place else ""
    match first["type"]:
        case "json_invalid":
            return (
                f"The body is not valid JSON: {first.get('ctx', {}).get('error', first['msg'])}.",
                "invalid_json",
                None,
            )
        case "extra_forbidden" if place[-1] in UNSUPPORTED:
            return f"{param} is not supported by the model's engine.", "unsupported_parameter", param
        case "extra_forbidden":
            return f"There is no parameter {param}.", "unknown_parameter", param
        case "union_tag_invalid":
            tags = first["ctx"]
            return (
                f"{param} is of the type {tags['tag'].strip('<>')}, which is not supported.",
                "unsupported_parameter",
                param,
            )
        case "none_required":
            return f"{param} is not supported; leave it out.", "unsupported_parameter", param
        case "missing":
            return f"{param or 'The body'} is missing.", "missing_parameter", param
    said = first["msg"].removeprefix("Value error, ")
    return f"{param or 'The body'} is wrong: {said}.", "invalid_value", param or root or None


def _depth(problem: Any) -> int:
    """Of a union's complaints, that of the branch that got furthest says most."""
    return len([part for part in problem["loc"] if not _is_branch(part)])


def _is_branch(part: Any) -> bool:
    """Pydantic names the branches of a union in an error's place, for example ``list[constrained-str]`` or ``str``."""
    return isinstance(part, str) and (
        part in ("str", "constrained-str", "TextPart", "Document") or part.startswith(("list[", "<", "constrained-"))
    )
