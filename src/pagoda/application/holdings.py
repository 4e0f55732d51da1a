"""What a home holds, as one process sees it: models, runs, keys, prompts, files, batches, collections, agents.

It is the same whoever owns the engines. What not every service needs is opened, and imported, by its first use. Not
here: the engines and the life of the process (``platform``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING

from pagoda.application.counting import open_telemetry
from pagoda.application.prompting import PromptRoom
from pagoda.application.records import Records
from pagoda.application.registry import run_kinds
from pagoda.core.ports import Inference
from pagoda.core.runs import RunRegistry, Runs
from pagoda.core.settings import Settings
from pagoda.logic.prompts.composing import Composer
from pagoda.model.catalog.entry import ModelEntry
from pagoda.model.catalog.opening import open_shelf
from pagoda.service.keys.ring import KeyRing
from pagoda.service.routing.roster import pool_entries

if TYPE_CHECKING:
    from pagoda.application.agenting import AgentDesk
    from pagoda.application.retrieving import Retrieval
    from pagoda.logic.batches.ledger import Batches
    from pagoda.logic.batches.shelf import FileShelf
    from pagoda.logic.prompts.book import PromptBook
    from pagoda.logic.trust.desk import TrustDesk
    from pagoda.service.keys.book import KeyBook


class Holdings:
    """What a home holds."""

    inference: Inference
    """The door, from the start of the process on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.telemetry = open_telemetry(settings)
        self.shelf = open_shelf(settings)
        taken = {name for entry in self.shelf.catalog.entries() for name in (entry.id, *entry.aliases)}
        for entry in pool_entries(settings.pools, self.shelf.catalog.refer, taken):
            self.shelf.catalog.lend(entry)
        self.runs = Runs(settings, RunRegistry(run_kinds()))
        self._records = Records(settings)
        self.records = self._records.open
        self.keys = KeyRing(self._book_if_any, settings.keys)
        self._prompts = PromptRoom(self._records, settings)
        self.prompts = self._prompts.index

    def entry(self, name: str | None, task: str, among: Collection[str] | None = None) -> ModelEntry:
        """The model of that name, or the default of the task, of those ids that may be named."""
        if name is not None:
            return self.shelf.catalog.resolve(name, among)
        defaults = self.settings.defaults  # the operator's word: a path or a hub's id will do as well
        entry = self.shelf.catalog.refer(defaults.embedding if task == "embedding" else defaults.chat)
        return entry if among is None or entry.id in among else self.shelf.catalog.resolve(entry.id, among)

    @cached_property
    def book(self) -> KeyBook:
        """The keys as they are kept."""
        from pagoda.service.keys.book import KeyBook  # noqa: PLC0415

        return KeyBook(self.records)

    def _book_if_any(self) -> KeyBook | None:
        return self.book if self._records.exist else None

    @property
    def prompt_book(self) -> PromptBook:
        """Prompts as they are kept."""
        return self._prompts.book

    @cached_property
    def composer(self) -> Composer:
        """What makes prompts ready for models."""
        return Composer(self.inference, self.entry(None, "embedding").id)

    @cached_property
    def files(self) -> FileShelf:
        """Uploaded files."""
        from pagoda.logic.batches.shelf import FileShelf  # noqa: PLC0415

        return FileShelf(self.records, self.settings.home / "files")

    @cached_property
    def batches(self) -> Batches:
        """Batches that were asked for over HTTP."""
        from pagoda.logic.batches.ledger import Batches  # noqa: PLC0415

        return Batches(self.records, self.files, self.runs)

    @cached_property
    def retrieval(self) -> Retrieval:
        """Collections of documents."""
        from pagoda.application.retrieving import Retrieval  # noqa: PLC0415

        return Retrieval(self.settings, self.records, lambda: self.inference)

    @cached_property
    def trust(self) -> TrustDesk:
        """How sure answers are, and what sources say to claims."""
        from pagoda.application.trusting import open_trust  # noqa: PLC0415

        return open_trust(self.settings, self.records, lambda: self.inference, self.retrieval.searcher)

    @cached_property
    def desk(self) -> AgentDesk:
        """Agents and their tools."""
        from pagoda.application.agenting import AgentDesk  # noqa: PLC0415

        return AgentDesk(self.settings, self.retrieval, self.prompts, self.telemetry)

    async def resume_batches(self) -> None:
        """Go on with batches that were cut short."""
        if await asyncio.to_thread(self.runs.find, kind="batch", status="interrupted", limit=1):
            await self.batches.resume_interrupted()

    async def leave_desk(self) -> None:
        """Stop the work of agents, if there is any; it can be resumed."""
        if "desk" in self.__dict__:
            await self.desk.close()
