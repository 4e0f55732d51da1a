"""``/mcp`` with the official client: tools called under keys, told in the audit log, and without the extra."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import orjson
import pytest
import pytest_asyncio
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

from pagoda.core.setting_values import Secret
from pagoda.core.settings import Keys, Settings, Tools
from pagoda.logic.tools.function import tool_from
from pagoda.logic.tools.tool import Occasion
from pagoda.service.keys.book import LOCAL
from pagoda.service.keys.draft import Draft
from tests.services import Service, eventually, fake_model, running
from tests.unit.interface.test_agents_api import HANGING

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEEN: list[Occasion] = []
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}
ACCEPTED = {"Accept": "application/json, text/event-stream"}


async def whose(occasion: Occasion) -> str:
    """Tell for whom this is called."""
    SEEN.append(occasion)
    return occasion.call.tenant


async def send(to: str) -> str:
    """Send something."""
    raise AssertionError(f"nobody approved sending to {to}")


told = tool_from(whose, name="whose", read_only=True)
sent = tool_from(send, name="sent", needs_approval=True)
TOOLS = Tools(functions=(f"{__name__}:told", f"{__name__}:sent", "tests.unit.interface.test_agents_api:slow"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(module_settings: Settings) -> AsyncIterator[Service]:
    """A service that needs keys."""
    keys = Keys(admin_key=Secret("an-admin-key-for-tests"))
    async with running(dataclasses.replace(module_settings, keys=keys, tools=TOOLS), [fake_model()]) as started:
        yield started


async def issue(service: Service, **fields: Any) -> tuple[str, str]:
    """Id and secret of a new key."""
    issued = await service.platform.book.create(Draft(**fields), LOCAL)
    return issued.held.key.id, issued.secret


@asynccontextmanager
async def client_of(service: Service, secret: str = "", mode: Any = "auto") -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30.0) as http,
        Client(streamable_http_client(service.url + "/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


async def said(client: Client, tool: str, **arguments: Any) -> str:
    answer = await client.call_tool(tool, arguments)
    assert isinstance(answer.content[0], TextContent)
    return answer.content[0].text


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client_lists_and_calls_tools_with_a_key(service: Service, mode: str) -> None:
    key_id, secret = await issue(service, name=f"blue-{mode}", team="blue", scopes=frozenset({"inference"}))
    async with client_of(service, secret, mode) as client:
        names = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert {"calculator", "whose", "search_collection"} <= set(names)
        assert not {"sent", "python"} & set(names), "nobody could approve it"
        hints = names["calculator"].annotations
        assert hints is not None
        assert hints.read_only_hint
        assert await said(client, "calculator", expression="37*41-2015") == "-498"
        assert (await client.call_tool("calculator", {"expression": "9**9**9"})).is_error
        assert await said(client, "whose") == "blue"
    asked = SEEN[-1].call
    assert (asked.tenant, asked.key_id, asked.route) == ("blue", key_id, "/mcp"), "its limits hold for what tools ask"


async def test_calls_stand_in_the_audit_log_with_the_key(service: Service) -> None:
    key_id, secret = await issue(service, name="audited", scopes=frozenset({"inference"}))
    async with client_of(service, secret) as client:
        await said(client, "calculator", expression="1+1")
    lines = [line for line in await service.platform.book.audit(limit=20) if line.who == key_id]
    assert [(line.action, line.subject.split()[0], line.outcome) for line in reversed(lines)] == [
        ("POST /mcp", "calculator", "begun"),
        ("POST /mcp", "calculator", "done"),
    ]


async def test_a_tool_that_needs_approval_or_is_not_there_cannot_be_called(service: Service) -> None:
    _, secret = await issue(service, name="curious")
    async with client_of(service, secret) as client:
        for name in ("sent", "nothing"):
            with pytest.raises(MCPError, match="There is no tool"):
                await client.call_tool(name, {"to": "mallory"})


async def test_without_a_key_or_its_scope_nothing_is_answered(service: Service) -> None:
    _, watcher = await issue(service, name="watcher", scopes=frozenset({"monitor"}))
    for secret, status in (("", 401), ("pk-" + "x" * 43, 401), (watcher, 403)):
        headers = ACCEPTED | ({"Authorization": f"Bearer {secret}"} if secret else {})
        async with service.session.post(service.url + "/mcp", json=INITIALIZE, headers=headers) as response:
            assert response.status == status
            assert "message" in (await response.json())["error"]
        with pytest.raises((MCPError, ExceptionGroup)):
            async with client_of(service, secret):
                pass


async def test_there_are_no_sessions_and_no_other_methods(service: Service) -> None:
    _, secret = await issue(service, name="plain")
    headers = ACCEPTED | {"Authorization": f"Bearer {secret}"}
    async with service.session.post(service.url + "/mcp", json=INITIALIZE, headers=headers) as response:
        assert response.status == 200
        assert "mcp-session-id" not in response.headers
        assert response.headers["x-request-id"]
        data = next(line for line in (await response.text()).splitlines() if line.startswith("data: {"))
        assert orjson.loads(data[6:])["result"]["serverInfo"]["name"] == "pagoda"
    for method in ("GET", "DELETE"):
        async with service.session.request(method, service.url + "/mcp", headers=headers) as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST")
    async with service.session.post(service.url + "/mcp", data=b"{", headers=headers) as response:
        assert (response.status, "application/json" in await response.text()) == (400, True)
    told = headers | {"Content-Type": "application/json"}
    async with service.session.post(service.url + "/mcp", data=b"{", headers=told) as response:
        assert (response.status, (await response.json())["jsonrpc"]) == (400, "2.0")


async def test_a_client_that_leaves_ends_the_tool(service: Service) -> None:
    _, secret = await issue(service, name="hasty")
    HANGING.clear()
    headers = ACCEPTED | {"Authorization": f"Bearer {secret}", "MCP-Protocol-Version": "2025-06-18"}
    wanted = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "slow", "arguments": {}}}
    asking = asyncio.create_task(service.session.request("POST", service.url + "/mcp", json=wanted, headers=headers))
    await eventually(lambda: HANGING == ["begun"])
    if not asking.done():
        asking.cancel()
    else:
        asking.result().close()
    await eventually(lambda: HANGING == ["begun", "stopped"])


async def test_without_keys_this_machines_own_programs_are_served(settings: Settings) -> None:
    async with running(dataclasses.replace(settings, tools=TOOLS), [fake_model()]) as service:
        async with client_of(service) as client:
            assert await said(client, "whose") == "local"
        headers = ACCEPTED | {"Origin": "https://pages.example"}
        async with service.session.post(service.url + "/mcp", json=INITIALIZE, headers=headers) as response:
            assert response.status == 403, "a page elsewhere"


async def test_without_the_extra_the_answer_says_what_to_install(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = await issue(service, name="bare")
    monkeypatch.delitem(sys.modules, "pagoda.interface.mcp", raising=False)
    monkeypatch.setitem(sys.modules, "mcp", None)
    headers = ACCEPTED | {"Authorization": f"Bearer {secret}"}
    async with service.session.post(service.url + "/mcp", json=INITIALIZE, headers=headers) as response:
        assert response.status == 400
        assert "pagoda-llm[mcp]" in (await response.json())["error"]["message"]
