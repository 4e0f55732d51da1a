"""Tools of MCP servers, over stdio or streamable HTTP, by the official SDK (the extra ``mcp``).

A server's own word is believed as far as it makes calls safer: a tool that does not say it only reads needs approval.
A connection belongs to a task of its own. A server that dies is started, or connected to, again with the next call; the
call that it died in fails, and none waits longer than its tool may. Not here: serving (``pagoda.interface.mcp``).
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pagoda.core.errors import InvalidRequest, ToolError
from pagoda.core.types import Json
from pagoda.logic.tools.tool import Occasion, Tool

try:
    from mcp import Client, MCPError, StdioServerParameters
    from mcp.types import TextContent
    from mcp.types import Tool as ServerTool
except ImportError as error:
    raise InvalidRequest("MCP servers need the extra mcp: python -m pip install 'pagoda-llm[mcp]'.") from error

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 30.0


class _Connection:
    """One connection to a server, made when it is needed and held by a task."""

    def __init__(self, name: str, address: str) -> None:
        self._name = name
        self._target: str | StdioServerParameters = address
        if not address.startswith(("http://", "https://")):
            command, *arguments = shlex.split(address)
            self._target = StdioServerParameters(command=command, args=arguments)
        self._holder: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._opening = asyncio.Lock()

    async def client(self) -> Client:
        """The connected client. Raises ``ToolError`` where there is no connection to be had."""
        async with self._opening:
            if self._holder is None or self._holder.done():
                ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
                self._holder = asyncio.create_task(self._hold(ready), name=f"mcp-{self._name}")
                try:
                    async with asyncio.timeout(_CONNECT_SECONDS):
                        self._client = await asyncio.shield(ready)
                except TimeoutError as error:
                    await self.close()
                    raise ToolError(
                        f"the MCP server {self._name} did not answer within {_CONNECT_SECONDS:g} s"
                    ) from error
            if self._client is None:
                raise RuntimeError("a held connection has its client")
            return self._client

    async def _hold(self, ready: asyncio.Future[Client]) -> None:
        """Enter and leave the connection in one task, as the SDK demands."""
        try:
            async with Client(self._target) as client:
                ready.set_result(client)
                await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  (the SDK raises groups of whatever went wrong below it)
            said = f"the MCP server {self._name} cannot be reached: {_first(error)}"
            if ready.done():
                logger.warning("%s", said)
            else:
                ready.set_exception(ToolError(said, retryable=True))

    async def drop(self) -> None:
        """Let go of a connection that does not work; the next call makes another."""
        async with self._opening:
            await self.close()

    async def close(self) -> None:
        """End the connection."""
        holder, self._holder, self._client = self._holder, None, None
        if holder is not None:
            holder.cancel()
            await asyncio.gather(holder, return_exceptions=True)


@asynccontextmanager
async def open_server(name: str, address: str) -> AsyncIterator[list[Tool]]:
    """The tools of a server at a URL or behind a command line, named ``server.tool``. Raises ``ToolError``."""
    connection = _Connection(name, address)
    try:
        client = await connection.client()
        found: list[ServerTool] = []
        cursor: str | None = None
        while True:
            page = await client.list_tools(cursor=cursor)
            found += page.tools
            if (cursor := page.next_cursor) is None:
                break
        yield [_tool(name, each, connection) for each in found]
    finally:
        await connection.close()


def _tool(server: str, given: ServerTool, connection: _Connection) -> Tool:
    hints = given.annotations
    reads = bool(hints and hints.read_only_hint)

    async def perform(arguments: Mapping[str, Any], occasion: Occasion) -> Json:
        client = await connection.client()
        meta: Any = {"pagoda/idempotency-key": occasion.key} if occasion.key else None
        try:
            answer = await client.call_tool(given.name, dict(arguments), meta=meta)
        except MCPError as error:
            await connection.drop()
            raise ToolError(f"the MCP server {server} failed: {error}", retryable=True) from error
        except asyncio.CancelledError:
            await asyncio.shield(connection.drop())  # whatever hangs there must not keep the next call waiting
            raise
        except Exception as error:
            await connection.drop()
            raise ToolError(f"the MCP server {server} broke off: {_first(error)}", retryable=True) from error
        text = "\n".join(part.text for part in answer.content if isinstance(part, TextContent))
        if answer.is_error:
            raise ToolError(text or f"{given.name} failed")
        return text if answer.structured_content is None else answer.structured_content

    return Tool(
        name=f"{server}.{given.name}",
        description=given.description or given.title or given.name,
        parameters=given.input_schema,
        perform=perform,
        read_only=reads,
        idempotent=reads or bool(hints and hints.idempotent_hint),
        needs_approval=not reads,
    )


def _first(error: BaseException) -> str:
    """The first cause within groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:300]
