"""Pagoda as an MCP server: its tools for any MCP client, over stdio or streamable HTTP (the extra ``mcp``).

Tools that need approval are not offered, since nobody of ours could be asked. What a client calls is checked, bounded
in time and length, and fails in words, as everywhere. Over HTTP there are no sessions: each request is whole, comes
with its own key, and may reach any worker. Not here: who may call (``routes.mcp``), and using other servers
(``pagoda.logic.tools.mcp``).
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

import pagoda
from pagoda.core.errors import InvalidRequest, NotFound, PagodaError
from pagoda.core.types import Call
from pagoda.logic.tools.byhand import Hand, call_by_hand
from pagoda.logic.tools.shelf import Toolshelf
from pagoda.logic.tools.tool import Tool
from pagoda.service.keys.book import KeyBook

try:
    from mcp import MCPError, types
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
except ImportError as error:
    raise InvalidRequest("Serving MCP needs the extra mcp: python -m pip install 'pagoda-llm[mcp]'.") from error


def build_mcp(shelf: Toolshelf, hand: Hand, call: Call) -> Server[Any]:
    """The server over the tools of a shelf, called on behalf of ``call``; the log tells of calls by ``hand``."""
    offered = {tool.name: tool for tool in shelf.all() if not tool.needs_approval}

    async def list_tools(context: Any, parameters: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        del context, parameters
        return types.ListToolsResult(tools=[_described(tool) for tool in offered.values()])

    async def call_tool(context: Any, parameters: types.CallToolRequestParams) -> types.CallToolResult:
        del context
        try:
            if (tool := offered.get(parameters.name)) is None:
                raise NotFound(f"There is no tool {parameters.name[:100]!r}; there are: {', '.join(offered)}.")
            outcome = await call_by_hand(hand, tool, dict(parameters.arguments or {}), call)
        except PagodaError as error:  # the SDK would keep its words from the client
            code = types.INVALID_PARAMS if isinstance(error, NotFound) else types.INTERNAL_ERROR
            raise MCPError(code, error.message) from error
        text = types.TextContent(type="text", text=outcome.error or outcome.text())
        return types.CallToolResult(content=[text], is_error=outcome.error is not None)

    return Server("pagoda", version=pagoda.__version__, on_list_tools=list_tools, on_call_tool=call_tool)


async def serve_stdio(shelf: Toolshelf, book: KeyBook) -> None:
    """Serve on standard input and output until the client closes them."""
    server = build_mcp(shelf, Hand(book, "MCP tools/call"), Call())
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


class Exchange(Response):
    """The answer to one HTTP request of a client, written by the SDK; the work ends with it, whoever ends it."""

    def __init__(self, server: Server[Any], max_body_bytes: int) -> None:
        super().__init__()
        self._manager = StreamableHTTPSessionManager(server, stateless=True, max_request_body_size=max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the request and answer it."""
        async with self._manager.run():
            await self._manager.handle_request(scope, receive, send)


def _described(tool: Tool) -> types.Tool:
    hints = types.ToolAnnotations(read_only_hint=tool.read_only, idempotent_hint=tool.repeatable)
    return types.Tool(
        name=tool.name, description=tool.description, input_schema=dict(tool.parameters), annotations=hints
    )
