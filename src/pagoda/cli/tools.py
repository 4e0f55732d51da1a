"""``pagoda tools``: what agents may have done, and one call of it by hand."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pagoda.cli.context import add_json_flag, add_settings_flag, print_json, settings_from

if TYPE_CHECKING:
    from pagoda.logic.tools.performing import Outcome
    from pagoda.logic.tools.tool import Tool


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``pagoda tools``."""
    tools = subparsers.add_parser(
        "tools",
        help="list tools, or call one",
        description="List the tools that agents may call, or call one by hand.",
        epilog="example:\n  pagoda tools call calculator expression=37*41-2015",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = tools.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = commands.add_parser(
        "list",
        help="list the tools",
        description="List the tools: those that come with Pagoda and those that settings name.",
        epilog="example:\n  pagoda tools list --set tools.documents=docs",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_json_flag(listing)
    add_settings_flag(listing)
    listing.set_defaults(run=list_tools)
    call = commands.add_parser(
        "call",
        help="call a tool",
        description="Call a tool. Exit status 1 when it fails.",
        epilog="example:\n  pagoda tools call convert_unit value=5 unit=miles into=km",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    call.add_argument("name", metavar="TOOL", help="the tool's name")
    call.add_argument(
        "arguments", nargs="*", metavar="NAME=VALUE", help="its arguments; JSON where the type is not text"
    )
    call.add_argument("--yes", action="store_true", help="also where the tool needs approval")
    add_json_flag(call)
    add_settings_flag(call)
    call.set_defaults(run=call_tool)
    serving = commands.add_parser(
        "serve",
        help="offer the tools to MCP clients",
        description="Offer the tools that need no approval on standard input and output: an MCP client is told this "
        "command.",
        epilog="example: pagoda tools serve --set tools.documents=docs",
    )
    add_settings_flag(serving)
    serving.set_defaults(run=serve_tools)


def list_tools(args: argparse.Namespace) -> int:
    """``pagoda tools list``."""
    import asyncio
    import os

    from pagoda.application.agenting import open_shelf_of_tools

    async def find() -> list[Tool]:
        async with open_shelf_of_tools(settings_from(args), os.environ) as shelf:
            return shelf.all()

    tools = asyncio.run(find())
    if args.json:
        print_json([tool.to_json() for tool in tools])
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("tool", "arguments", "", "what it does")
    for tool in tools:
        words = [word for word, given in (("reads", tool.read_only), ("needs approval", tool.needs_approval)) if given]
        table.add_row(tool.name, ", ".join(tool.parameters.get("properties", {})), ", ".join(words), tool.description)
    Console().print(table)
    return 0


def call_tool(args: argparse.Namespace) -> int:
    """``pagoda tools call``."""
    import asyncio
    import os

    from pagoda.application.agenting import home_audit, open_shelf_of_tools
    from pagoda.core.errors import InvalidRequest
    from pagoda.core.types import Call
    from pagoda.logic.tools.byhand import Hand, call_by_hand

    settings = settings_from(args)

    async def call() -> Outcome:
        async with open_shelf_of_tools(settings, os.environ) as shelf, home_audit(settings) as book:
            tool = shelf.get(args.name)
            if tool.needs_approval and not args.yes:
                raise InvalidRequest(f"{tool.name} needs approval; say --yes if you want it done.")
            arguments = _arguments(tool, args.arguments)
            return await call_by_hand(Hand(book, "pagoda tools call"), tool, arguments, Call())

    outcome = asyncio.run(call())
    if args.json:
        print_json({"result": outcome.result, "error": outcome.error})
    else:
        print(outcome.text())
    return 0 if outcome.error is None else 1


def serve_tools(args: argparse.Namespace) -> int:
    """``pagoda tools serve``."""
    import asyncio
    import os

    from pagoda.application.agenting import home_audit, open_shelf_of_tools

    settings = settings_from(args)

    async def serve() -> None:
        from pagoda.interface.mcp import serve_stdio

        async with open_shelf_of_tools(settings, os.environ) as shelf, home_audit(settings) as book:
            await serve_stdio(shelf, book)

    asyncio.run(serve())
    return 0


def _arguments(tool: Tool, given: list[str]) -> dict[str, object]:
    """Arguments as they are written: text where the schema says text, else JSON."""
    import json

    from pagoda.core.errors import InvalidRequest

    properties = tool.parameters.get("properties", {})
    arguments: dict[str, object] = {}
    for item in given:
        name, sign, value = item.partition("=")
        if not sign:
            raise InvalidRequest(f"{item}: write arguments as NAME=VALUE.")
        if properties.get(name, {}).get("type") == "string":
            arguments[name] = value
            continue
        try:
            arguments[name] = json.loads(value)
        except json.JSONDecodeError:
            arguments[name] = value
    return arguments
