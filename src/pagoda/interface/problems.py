"""Errors as clients see them: the only place that knows HTTP status codes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pagoda.core import errors

logger = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[errors.PagodaError], int], ...] = (
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.Forbidden, 403),
    (errors.TooLarge, 413),
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
_TYPES = {400: "invalid_request_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
UNSUPPORTED = frozenset(
    {"tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "audio", "prediction", "suffix"}
    | {"reasoning_effort", "verbosity", "web_search_options", "tool_calls", "tool_call_id"}
)
"""OpenAI's parameters that no engine here can honour yet: refused by name instead of called unknown."""


def status_of(error: errors.PagodaError) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def body_of(error: errors.PagodaError) -> dict[str, Any]:
    """OpenAI's error object for an error."""
    return shape(status_of(error), error.message, error.code, error.param)


def shape(status: int, message: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    """OpenAI's error object."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def refusal(status: int, message: str, code: str | None, param: str | None = None) -> Response:
    """A response that holds an error."""
    return Response(orjson.dumps(shape(status, message, code, param)), status, media_type="application/json")


def install_problems(app: FastAPI) -> None:
    """Draw every error of the application in one shape."""

    @app.exception_handler(errors.PagodaError)
    async def on_pagoda(request: Request, error: errors.PagodaError) -> Response:
        del request
        response = Response(orjson.dumps(body_of(error)), status_of(error), media_type="application/json")
        if error.retryable and response.status_code in (429, 503):
            response.headers["Retry-After"] = "1"
        return response

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        del request
        return refusal(400, *_explain(error.errors()))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        message = {404: f"There is no {request.url.path} here.", 405: f"{request.method} is not allowed here."}
        response = refusal(error.status_code, message.get(error.status_code, str(error.detail)), None)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> Response:
        logger.error("unexpected error at %s", request.url.path, exc_info=error)
        return refusal(500, "Pagoda failed unexpectedly; its log says more.", "internal_error")


def _explain(problems: Sequence[Any]) -> tuple[str, str, str | None]:
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
        case "missing":
            return f"{param or 'The body'} is missing.", "missing_parameter", param
    said = first["msg"].removeprefix("Value error, ")
    return f"{param or 'The body'} is wrong: {said}.", "invalid_value", param or root or None


def _depth(problem: Any) -> int:
    """Of a union's complaints, that of the branch that got furthest says most."""
    return len([part for part in problem["loc"] if not _is_branch(part)])


def _is_branch(part: Any) -> bool:
    """Pydantic names the branches of a union in an error's place, for example ``list[constrained-str]`` or ``str``."""
    return isinstance(part, str) and (part in ("str", "constrained-str", "TextPart") or part.startswith("list["))
