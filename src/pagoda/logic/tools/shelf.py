"""The tools there are: those that come with Pagoda, and those that settings name."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pagoda.core.errors import InvalidRequest, NotFound
from pagoda.core.settings import Tools
from pagoda.logic.tools import calculator, clock, sandbox, units
from pagoda.logic.tools.fetching import Web
from pagoda.logic.tools.function import tool_from
from pagoda.logic.tools.searching import SearchProvider, SearxSearch, read_collection
from pagoda.logic.tools.tool import Tool

_FEW_HITS = 5


class Toolshelf:
    """Tools by their names."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            if tool.name in self._tools:
                raise InvalidRequest(f"Two tools are called {tool.name}; rename one of them.")
            self._tools[tool.name] = tool

    def all(self) -> list[Tool]:
        """All tools."""
        return list(self._tools.values())

    def get(self, name: str) -> Tool:
        """The tool of that name. Raises ``NotFound``."""
        if name not in self._tools:
            known = ", ".join(self._tools) or "none"
            raise NotFound(f"There is no tool {name[:100]!r}; there are: {known}.", param="tools")
        return self._tools[name]

    def choose(self, names: Sequence[str]) -> list[Tool]:
        """The tools of these names, each once. Raises ``NotFound``."""
        return [self.get(name) for name in dict.fromkeys(names)]


def open_toolshelf(settings: Tools, more: Iterable[Tool] = ()) -> Toolshelf:
    """The tools that come with Pagoda and those that settings name. Raises ``InvalidRequest`` where one is wrong."""
    from pagoda.logic.tools.openapi import read_operations  # noqa: PLC0415  (only where there are any)

    web = Web(settings.hosts, settings.private_hosts)
    tools = [*built_in(), *_searching(settings, web)]
    if settings.hosts or settings.private_hosts:
        tools.append(_http_get(web))
    for name in settings.functions:
        tools.append(_named(name))
    for name, path in settings.openapi.items():
        tools += read_operations(name, Path(path).expanduser(), web)
    limited = [replace(tool, seconds=settings.seconds, characters=settings.characters) for tool in tools]
    return Toolshelf([*limited, *more])


def built_in() -> list[Tool]:
    """The tools that need no settings."""

    async def calculate(expression: Annotated[str, Field(max_length=1000)]) -> str:
        """Calculate an arithmetic expression exactly, for example 37*41-2015 or sqrt(2)/3.

        Args:
            expression: The arithmetic expression: numbers, + - * / // % **, parentheses, functions such as sqrt.
        """
        return calculator.calculate(expression)

    async def time_now(zone: str = "UTC") -> str:
        """Tell the date, time and weekday now.

        Args:
            zone: IANA time zone such as Europe/Paris or Asia/Shanghai.
        """
        return clock.tell_time(zone)

    async def date_add(day: str, days: int) -> str:
        """Find the date some days after a date, or before it if days is negative.

        Args:
            day: The date as YYYY-MM-DD.
            days: How many days later.
        """
        return clock.shift_date(day, days)

    async def date_difference(first: str, second: str) -> int:
        """Count the days from one date to another.

        Args:
            first: The first date as YYYY-MM-DD.
            second: The second date as YYYY-MM-DD.
        """
        return clock.days_between(first, second)

    async def convert_unit(value: float, unit: str, into: str) -> str:
        """Convert a quantity into another unit, for example 5 miles into km, or 100 f into c.

        Args:
            value: The number.
            unit: The unit it is given in.
            into: The unit wanted.
        """
        return units.convert(value, unit, into)

    harmless = (time_now, date_add, date_difference, convert_unit)
    return [
        tool_from(calculate, name="calculator", read_only=True, idempotent=True),
        *(tool_from(function, read_only=True, idempotent=True) for function in harmless),
        tool_from(_python, name="python", needs_approval=True),
    ]


async def _python(code: Annotated[str, Field(max_length=20_000)]) -> str:
    """Run Python code (standard library only) and give what it prints.

    Args:
        code: The code; it must print its result.
    """
    return await sandbox.run_python(code)


def _searching(settings: Tools, web: Web) -> list[Tool]:
    if settings.search_url:
        return [search_tool(SearxSearch(settings.search_url, web.get_json))]
    if settings.documents:
        return [search_tool(read_collection(Path(settings.documents).expanduser()))]
    return []


def search_tool(provider: SearchProvider, most: int = _FEW_HITS) -> Tool:
    """The tool ``search`` over a provider, with ``most`` passages at a time."""

    async def search(query: str) -> list[dict[str, str]]:
        """Search for passages about something.

        Args:
            query: What to look for, in a few words.
        """
        return [{"source": hit.source, "text": hit.text} for hit in await provider(query, most)]

    return tool_from(search, read_only=True, idempotent=True, attempts=2)


def _http_get(web: Web) -> Tool:
    async def http_get(url: str) -> str:
        """Fetch a page or document from an allowed host.

        Args:
            url: Its address, beginning with https:// or http://.
        """
        return await web.get(url)

    return tool_from(http_get, read_only=True, idempotent=True, attempts=2)


def _named(name: str) -> Tool:
    module, sign, attribute = name.partition(":")
    if not sign:
        raise InvalidRequest(f"tools.functions: write {name!r} as package.module:function.")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        hint = "; is its folder in PYTHONPATH?" if isinstance(error, ModuleNotFoundError) else "."
        raise InvalidRequest(f"tools.functions: {name} cannot be imported ({error}){hint}") from error
    return found if isinstance(found, Tool) else tool_from(found)
