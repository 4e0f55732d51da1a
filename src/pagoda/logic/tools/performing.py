"""One call of a tool: arguments checked, in its time, repeated where that is harmless, the result checked and cut."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from pagoda.core.errors import PagodaError, ToolError
from pagoda.core.types import Json
from pagoda.logic.inference.output import violation
from pagoda.logic.tools.tool import Occasion, Tool

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call gave: a result, or in ``error`` the reason why there is none."""

    result: Json = None
    error: str | None = None
    cut: bool = False
    """Whether the text of the result was longer than the tool may show."""

    def text(self) -> str:
        """As models are shown it."""
        if self.error is not None:
            return f"Error: {self.error}"
        return self.result if isinstance(self.result, str) else orjson.dumps(self.result).decode()


async def perform(tool: Tool, arguments: Any, occasion: Occasion) -> Outcome:
    """Call a tool. What goes wrong with it is an outcome too; only being cancelled is raised."""
    if (why := violation(arguments, tool.parameters)) is not None:
        return Outcome(error=f"the arguments of {tool.name} are wrong {why}")
    attempts = tool.attempts if tool.repeatable else 1
    for attempt in range(1, attempts + 1):
        try:
            result = await _attempt(tool, arguments, occasion)
        except ToolError as error:
            if error.retryable and attempt < attempts:
                await asyncio.sleep(_PAUSE_SECONDS * 2 ** (attempt - 1))
                continue
            return Outcome(error=error.message)
        if tool.returns is not None and (why := violation(result, tool.returns)) is not None:
            return Outcome(error=f"{tool.name} gave a result that breaks its schema {why}")
        return _within(result, tool)
    raise RuntimeError("the last attempt ends in an outcome")


async def _attempt(tool: Tool, arguments: Mapping[str, Any], occasion: Occasion) -> Json:
    """Raises ``ToolError``, whatever went wrong."""
    try:
        async with asyncio.timeout(tool.seconds):
            return await tool.perform(arguments, occasion)
    except TimeoutError as error:
        raise ToolError(f"{tool.name} did not answer within {tool.seconds:g} s", retryable=True) from error
    except ToolError:
        raise
    except PagodaError as error:
        raise ToolError(error.message, retryable=error.retryable) from error
    except Exception as error:
        logger.warning("the tool %s failed", tool.name, exc_info=True)
        raise ToolError(f"{tool.name} failed: {type(error).__name__}: {str(error)[:500]}") from error


def _within(result: Json, tool: Tool) -> Outcome:
    try:
        text = result if isinstance(result, str) else orjson.dumps(result, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError as error:
        return Outcome(error=f"{tool.name} gave a result that is not JSON ({error})")
    if len(text) <= tool.characters:
        return Outcome(result if isinstance(result, str) else orjson.loads(text))
    left = len(text) - tool.characters
    return Outcome(f"{text[: tool.characters]}\n[{left} characters more were cut]", cut=True)
