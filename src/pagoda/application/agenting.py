"""Agents and tools wired together: for the service (``Platform.agents``) and for commands of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from pagoda.application.counting import open_telemetry
from pagoda.application.records import Records
from pagoda.application.retrieving import Retrieval, home_retrieval
from pagoda.core.ports import Inference
from pagoda.core.settings import Settings
from pagoda.core.storage.store import Store, open_store
from pagoda.logic.agents.desk import Agents, Terms
from pagoda.logic.agents.journal import AgentRun
from pagoda.logic.agents.plan import AgentPlan
from pagoda.logic.agents.subagents import check_subagents, read_subagents, subagent_tools
from pagoda.logic.prompts.index import PromptIndex
from pagoda.logic.tools.knowledge import Knowledge, knowledge_tools
from pagoda.logic.tools.observing import observed
from pagoda.logic.tools.shelf import Toolshelf, open_toolshelf
from pagoda.logic.tools.tool import Occasion, Tool
from pagoda.service.keys.book import KeyBook
from pagoda.service.limits.prices import price_table
from pagoda.service.telemetry import Telemetry


class AgentDesk:
    """Agents with their tools, opened when somebody needs them, over the collections and prompts of their process."""

    def __init__(self, settings: Settings, retrieval: Retrieval, prompts: PromptIndex, telemetry: Telemetry) -> None:
        self._settings = settings
        self._retrieval = retrieval
        self._prompts = prompts
        self._telemetry = telemetry
        self._agents: Agents | None = None
        self._exit = AsyncExitStack()
        self._opening = asyncio.Lock()

    async def agents(self) -> Agents:
        """The agents. Raises ``PagodaError`` for a tool that settings name wrongly."""
        async with self._opening:
            if self._agents is None:
                async with AsyncExitStack() as exit:
                    settings, store = self._settings, self._retrieval.store
                    subagents = await asyncio.to_thread(read_subagents, settings.tools.agents)
                    more = subagent_tools(subagents, settings.defaults.chat, self._delegate)
                    shelf = await _shelf(settings, exit, self._telemetry, self._knowledge, more)
                    check_subagents(subagents, shelf)
                    terms = Terms(price_table(settings.prices), settings.reviews.reviewers)
                    self._agents = Agents(store, lambda: self._retrieval.inference, shelf, self._telemetry, terms)
                    self._exit = exit.pop_all()
        return self._agents

    async def _delegate(self, plan: AgentPlan, occasion: Occasion) -> AgentRun:
        return await (await self.agents()).delegate(plan, occasion)

    async def _knowledge(self) -> Knowledge:
        return _knowledge(self._settings, self._retrieval, self._prompts)

    async def close(self) -> None:
        """Stop the work (it can be resumed), and leave the servers of tools."""
        if self._agents is not None:
            await self._agents.close()
        await self._exit.aclose()


@asynccontextmanager
async def open_shelf_of_tools(settings: Settings, environment: Mapping[str, str]) -> AsyncIterator[Toolshelf]:
    """The tools alone, for the length of the block. The service is joined or started by the first that needs it."""
    async with AsyncExitStack() as exit:
        opened: list[Knowledge] = []
        opening = asyncio.Lock()

        async def knowledge() -> Knowledge:
            async with opening:
                if not opened:
                    retrieval, prompts = await exit.enter_async_context(home_retrieval(settings, environment))
                    await prompts.start()  # an MCP client may stay for days
                    opened.append(_knowledge(settings, retrieval, prompts))
            return opened[0]

        yield await _shelf(settings, exit, _own_telemetry(settings, exit), knowledge)


@asynccontextmanager
async def home_audit(settings: Settings) -> AsyncIterator[KeyBook]:
    """The book of this home, for its audit log and the length of the block; its first use opens the records."""
    records = Records(settings)
    try:
        yield KeyBook(records.open)
    finally:
        await records.close()


@asynccontextmanager
async def home_agents(settings: Settings, environment: Mapping[str, str]) -> AsyncIterator[Agents]:
    """The agents of this home in this process; its service answers for the models, and is started if need be."""
    async with AsyncExitStack() as exit:
        retrieval, prompts = await exit.enter_async_context(home_retrieval(settings, environment))
        desk = AgentDesk(settings, retrieval, prompts, _own_telemetry(settings, exit))
        exit.push_async_callback(desk.close)
        yield await desk.agents()


@asynccontextmanager
async def home_records(settings: Settings) -> AsyncIterator[Agents]:
    """The agents as they are written down, for commands that need no model."""
    async with open_store(settings) as store:

        async def records() -> Store:
            return store

        def nobody() -> Inference:
            raise RuntimeError("no model is asked here")

        yield Agents(records, nobody, Toolshelf(()), Telemetry())


def _own_telemetry(settings: Settings, exit: AsyncExitStack) -> Telemetry:
    """What a command counts is nobody's; its traces are sent."""
    telemetry = open_telemetry(settings)
    exit.callback(telemetry.traces.close)
    return telemetry


def _knowledge(settings: Settings, retrieval: Retrieval, prompts: PromptIndex) -> Knowledge:
    return Knowledge(
        searcher=retrieval.searcher,
        answerer=lambda call: retrieval.answerer(prompts, call),
        prompts=prompts,
        door=retrieval.inference,
        model=settings.defaults.chat,
        embedding_model=settings.defaults.embedding,
    )


async def _shelf(
    settings: Settings,
    exit: AsyncExitStack,
    telemetry: Telemetry,
    knowledge: Callable[[], Awaitable[Knowledge]],
    others: Sequence[Tool] = (),
) -> Toolshelf:
    more = [*knowledge_tools(knowledge), *others]
    if settings.tools.mcp:
        from pagoda.logic.tools.mcp import open_server  # noqa: PLC0415  (it brings the SDK, which is an extra)

        for name, address in settings.tools.mcp.items():
            server = await exit.enter_async_context(open_server(name, address))
            more += server
    shelf = await asyncio.to_thread(open_toolshelf, settings.tools, more)
    return Toolshelf(observed(tool, telemetry) for tool in shelf.all())
