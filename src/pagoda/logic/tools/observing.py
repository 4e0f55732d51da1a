"""Tools that are counted and traced, whoever calls them: an agent, a person, an MCP client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any

from pagoda.core.types import Json
from pagoda.logic.tools.tool import Occasion, Tool
from pagoda.service.telemetry import Telemetry


def observed(tool: Tool, telemetry: Telemetry) -> Tool:
    """The tool, each attempt at which is a span and counts with its time; never its arguments or result."""
    values = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": tool.name}

    async def perform(arguments: Mapping[str, Any], occasion: Occasion) -> Json:
        began, outcome = perf_counter(), "failed"
        try:
            with telemetry.traces.traced(f"execute_tool {tool.name}", values):
                result = await tool.perform(arguments, occasion)
            outcome = "ok"
            return result
        except asyncio.CancelledError:  # its time was over, or somebody stopped it
            outcome = "stopped"
            raise
        finally:
            telemetry.child(telemetry.tool_calls, tool.name, outcome).inc()
            telemetry.child(telemetry.tool_duration, tool.name).observe(perf_counter() - began)

    return replace(tool, perform=perform)
