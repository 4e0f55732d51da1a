"""An MCP server for tests: it counts its lives in a file, and dies, hangs or lies when it is asked to."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

TEXT: dict[str, Any] = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


async def list_tools(context: Any, parameters: Any) -> types.ListToolsResult:
    reads = types.ToolAnnotations(read_only_hint=True)
    tools = [types.Tool(name=name, description=name, input_schema=TEXT, annotations=reads) for name in ("echo", "die")]
    tools.append(types.Tool(name="hang", description="hang", input_schema=TEXT, annotations=reads))
    tools.append(types.Tool(name="write", description="write", input_schema=TEXT))
    return types.ListToolsResult(tools=tools)


async def call_tool(context: Any, parameters: types.CallToolRequestParams) -> types.CallToolResult:
    if parameters.name == "die":
        os._exit(1)
    if parameters.name == "hang":
        await asyncio.sleep(3600)
    text = types.TextContent(type="text", text=str((parameters.arguments or {}).get("text")))
    return types.CallToolResult(content=[text], is_error=parameters.name == "write")


async def main() -> None:
    lives = Path(sys.argv[1])
    lives.write_text(lives.read_text() + "x" if lives.exists() else "x")
    server: Server[Any] = Server("test", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


if __name__ == "__main__":
    asyncio.run(main())
