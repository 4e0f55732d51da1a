"""``/mcp``: the tools that need no approval, for MCP clients over streamable HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import Call
from pagoda.interface.access import actor_of, needs
from pagoda.interface.context import Backstage, Route, backstage, call_of
from pagoda.interface.sse import streamed

router = APIRouter(route_class=Route, tags=["Agents"])

_MESSAGE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object", "description": "A JSON-RPC message of MCP."}}},
    }
}
_REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"description": "No message of MCP: an error of JSON-RPC.", "content": {"application/json": {}}}
}


@router.post(
    "/mcp",
    response_class=Response,
    responses=streamed("The answer, as one message or as a stream of messages.") | _REFUSED,
    openapi_extra=_MESSAGE,
    summary="Use tools as an MCP client",
)
@needs("inference")
async def exchange_messages(
    request: Request, stage: Annotated[Backstage, Depends(backstage)], call: Annotated[Call, Depends(call_of)]
) -> Response:
    """One message of the Model Context Protocol, streamable HTTP without sessions. Needs the extra `mcp`."""
    if not request.headers.get("content-type", "").startswith("application/json"):  # the SDK refuses it without a body
        raise InvalidRequest("A message of MCP is JSON; say so with Content-Type: application/json.")
    from pagoda.interface.mcp import Exchange, build_mcp  # noqa: PLC0415  (it brings the SDK, which is an extra)
    from pagoda.logic.tools.byhand import Hand  # noqa: PLC0415  (it brings the database)

    shelf = (await stage.desk.agents()).tools
    server = build_mcp(shelf, Hand(stage.book, f"POST {call.route}", actor_of(request)), call)
    return Exchange(server, stage.settings.server.max_body_bytes)
