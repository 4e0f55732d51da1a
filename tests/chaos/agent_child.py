"""An agent's work in a process of its own, killed before or after a chosen write; its tools count outside of it.

It is forked from a server that has imported everything, since there are many of them.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from pagoda.core.configuration import load_settings
from pagoda.core.errors import PagodaError
from pagoda.core.storage.store import Store, open_store
from pagoda.core.types import Call, CallDelta, Delta, Event, Finish, Generation, Json, Started, Usage
from pagoda.logic.agents.desk import Agents
from pagoda.logic.agents.plan import AgentPlan
from pagoda.logic.tools.function import tool_from
from pagoda.logic.tools.shelf import Toolshelf
from pagoda.logic.tools.tool import Occasion
from pagoda.service.telemetry import Telemetry


@dataclass(frozen=True)
class Order:
    """What a child is to do: go on with a run, or begin one; and where it is to die."""

    home: str
    tool: str
    run: str | None = None
    write: int = 0
    """The write to die at; 0: none."""
    after: bool = False
    dies_in_tool: bool = False
    approve: bool = False


class ScriptedModel:
    """Calls the tool in its first turn, and answers with what came of it in its second."""

    def __init__(self, tool: str) -> None:
        self._tool = tool

    async def complete(self, request: Generation, call: Call) -> AsyncIterator[Event]:
        del call
        yield Started("scripted", "fake")
        told = [message for message in request.messages or () if message["role"] == "tool"]
        if told:
            yield Delta(0, f"It said: {told[-1]['content']}")
            yield Finish(0, "stop")
        else:
            yield CallDelta(0, 0, "", "c0", self._tool)
            yield CallDelta(0, 0, '{"to": "ada"}')
            yield Finish(0, "tool_calls")
        yield Usage(1, 1)


def tools(order: Order) -> Toolshelf:
    effects = Path(order.home) / "effects"

    async def send(to: str, occasion: Occasion) -> str:
        """Send."""
        with effects.open("a") as file:
            file.write(occasion.key + "\n")
        if order.dies_in_tool:
            os.kill(os.getpid(), signal.SIGKILL)
        return f"sent to {to}"

    async def receipt(key: str) -> Json | None:
        return "sent before" if effects.exists() and key in effects.read_text().split() else None

    return Toolshelf(
        [
            tool_from(send, name="blind"),
            tool_from(send, name="receipted", receipt=receipt),
            tool_from(send, name="asked", needs_approval=True, receipt=receipt),
        ]
    )


def deadly(store: Store, order: Order) -> None:
    """Have this process die at its n-th write."""
    apply, count = store.apply, 0

    async def counted(change: Callable[[Connection], Any]) -> Any:
        nonlocal count
        count += 1
        if count == order.write and not order.after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = await apply(change)
        if count == order.write:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    if order.write:
        store.apply = counted  # type: ignore[method-assign]


async def work(order: Order) -> None:
    settings = load_settings({}, {"PAGODA_HOME": order.home, "HOME": order.home}, Path(order.home))
    async with open_store(settings) as store:
        deadly(store, order)

        async def records() -> Store:
            return store

        agents = Agents(records, lambda: ScriptedModel(order.tool), tools(order), Telemetry())  # type: ignore[arg-type, return-value]
        told = Path(order.home) / "told"
        try:
            if order.run is None:
                run = await agents.begin(AgentPlan(task="t", tools=(order.tool,), model="scripted"), Call())
            else:
                if order.approve:
                    await agents.decide(order.run, None, approve=True, by="test", tenant=None)
                run = await agents.resume(order.run, Call(), tenant=None)
        except PagodaError as error:
            told.write_text(error.message)
            return
        run = await agents.wait(run.id, tenant=None)
        events = [event["type"] async for event in agents.events(run.id, tenant=None)]
        told.write_text(f"{run.status} {' '.join(events)}\n{run.answer}")


def perform(order: Order) -> None:
    """The child's program."""
    asyncio.run(work(order))
