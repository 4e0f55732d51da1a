"""MCP both ways: the official client uses our tools, and we use servers, also ones that die or never answer."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters
from mcp.types import TextContent

from pagoda.application.agenting import home_audit
from pagoda.core.errors import ToolError
from pagoda.core.settings import Settings
from pagoda.logic.tools.mcp import open_server
from pagoda.logic.tools.performing import perform
from pagoda.logic.tools.tool import Occasion

SERVER = Path(__file__).with_name("mcp_server.py")


async def test_the_official_client_uses_pagodas_tools(tmp_path: Path) -> None:
    environment = {"PAGODA_HOME": str(tmp_path), "HOME": str(tmp_path), "PATH": ""}
    target = StdioServerParameters(command=sys.executable, args=["-m", "pagoda", "tools", "serve"], env=environment)
    async with Client(target) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert "calculator" in names
        assert "python" not in names, "nobody could approve it"
        answer = await client.call_tool("calculator", {"expression": "37*41-2015"})
        assert isinstance(answer.content[0], TextContent)
        assert (answer.content[0].text, answer.is_error) == ("-498", False)
        wrong = await client.call_tool("calculator", {"expression": "9**9**9"})
        assert wrong.is_error
        assert {"search_collection", "ask_collection", "run_prompt"} <= set(names)
    async with home_audit(Settings(home=tmp_path)) as book:
        lines = [(line.action, line.subject.split()[0], line.outcome) for line in await book.audit(limit=9)][::-1]
    assert lines == [("MCP tools/call", "calculator", outcome) for outcome in ("begun", "done", "begun", "failed")]


async def test_tools_of_a_server_are_called_and_those_that_change_things_need_approval(tmp_path: Path) -> None:
    async with open_server("own", f"{sys.executable} {SERVER} {tmp_path / 'lives'}") as tools:
        found = {tool.name: tool for tool in tools}
        assert {name: tool.needs_approval for name, tool in found.items()} == {
            "own.echo": False,
            "own.die": False,
            "own.hang": False,
            "own.write": True,
        }
        assert (await perform(found["own.echo"], {"text": "你好"}, Occasion())).result == "你好"
        assert (await perform(found["own.write"], {"text": "refused"}, Occasion())).error == "refused"
        assert "wrong" in str((await perform(found["own.echo"], {}, Occasion())).error)


async def test_a_server_that_dies_or_hangs_costs_its_call_and_is_started_again(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    async with open_server("own", f"{sys.executable} {SERVER} {lives}") as tools:
        found = {tool.name: tool for tool in tools}
        assert (await perform(found["own.die"], {"text": ""}, Occasion())).error
        assert (await perform(found["own.echo"], {"text": "back"}, Occasion())).result == "back"
        hanging = dataclasses.replace(found["own.hang"], seconds=0.3)
        assert "did not answer" in str((await perform(hanging, {"text": ""}, Occasion())).error)
        assert (await perform(found["own.echo"], {"text": "again"}, Occasion())).result == "again"
    assert len(lives.read_text()) == 3


async def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="own"):
        async with open_server("own", str(tmp_path / "none")):
            pass
