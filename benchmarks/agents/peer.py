"""A peer's agent on the mock, run by a Python that has it; prints one JSON line. Nothing of Pagoda is imported."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any


def calculate(expression: str) -> str:
    """Calculate.

    Args:
        expression: The expression.
    """
    left, right = expression.split("+")
    return str(int(left) + int(right))


def pydantic_ai(url: str) -> Callable[[], Any]:
    from pydantic_ai import Agent  # type: ignore[import-not-found]
    from pydantic_ai.models.openai import OpenAIChatModel  # type: ignore[import-not-found]
    from pydantic_ai.providers.openai import OpenAIProvider  # type: ignore[import-not-found]

    model = OpenAIChatModel("mock", provider=OpenAIProvider(base_url=url, api_key="none"))
    agent: Any = Agent(model)
    agent.tool_plain(name="calculator")(calculate)
    return lambda: agent.run_sync("Count.").output


def smolagents(url: str) -> Callable[[], Any]:
    from smolagents import OpenAIServerModel, ToolCallingAgent, tool  # type: ignore[import-not-found]

    calculate.__name__ = "calculator"
    model = OpenAIServerModel("mock", api_base=url, api_key="none")
    agent = ToolCallingAgent(tools=[tool(calculate)], model=model, max_steps=100, verbosity_level=0)
    return lambda: agent.run("Count.")


def main() -> None:
    name, url, turns, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    run = {"pydantic-ai": pydantic_ai, "smolagents": smolagents}[name](url)
    answer = run()
    if answer != "Counted.":
        raise RuntimeError(f"{name} answered {answer!r}")
    taken, spent = [], []
    for _ in range(rounds):
        began, before = time.perf_counter(), time.process_time()
        run()
        taken.append((time.perf_counter() - began) / (turns + 1))
        spent.append((time.process_time() - before) / (turns + 1))
    print(json.dumps({"turn_ms": round(median(taken) * 1000, 2), "turn_cpu_ms": round(median(spent) * 1000, 2)}))


if __name__ == "__main__":
    main()
