"""The experiments that run now, in memory: what requests ask, answered without a look at the database.

They are read again every ``experiments.refresh_seconds``, so that what another process started, stopped or ramped holds
here within a second. While the database does not answer, those known go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from pagoda.core.errors import PagodaError
from pagoda.core.recurring import recur
from pagoda.core.settings import Experiments as Settings
from pagoda.core.types import Call
from pagoda.logic.experiments.assignment import Assignment, Trial
from pagoda.logic.experiments.sightings import Sightings
from pagoda.service.limits.prices import PriceTable
from pagoda.service.note import SLOT

if TYPE_CHECKING:  # it brings the database, which not every service opens
    from pagoda.logic.experiments.book import Experiment, ExperimentBook

logger = logging.getLogger(__name__)

_NOBODY = "local"


class Roster:
    """``book`` opens the book of experiments, or gives ``None`` where there are no records at all."""

    def __init__(self, book: Callable[[], ExperimentBook | None], settings: Settings, prices: PriceTable) -> None:
        self._book = book
        self._settings = settings
        self._sightings = Sightings(prices)
        self._running: dict[tuple[str, str, str], Assignment] = {}
        self._revisions: dict[str, int] = {}
        self._adaptive: list[Experiment] = []
        self._works = True
        self._adapted = 0.0
        self._looking = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Know what runs, and keep knowing it."""
        await self.refresh()
        self._adapted = asyncio.get_running_loop().time()
        self._tasks = [
            asyncio.create_task(recur(self.refresh, self._settings.refresh_seconds)),
            asyncio.create_task(recur(self._work, self._settings.write_seconds)),
        ]

    async def close(self) -> None:
        """Write what was seen."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.write()

    def model_of(self, call: Call, name: str, among: Collection[str] | None) -> str | None:
        """The model that this call gets in place of ``name``, as its variant says; ``None``: none, ask ``name`` itself.

        A variant whose model the call's key may not ask (``among``) leaves the call outside the experiment.
        """
        running = self._running.get((call.tenant, "model", name)) if self._running else None
        trial = None if running is None else running.assign(self._unit(running, call))
        if running is None or trial is None:
            return None
        model = running.model_of(trial)
        if model is not None and among is not None and model not in among:
            return None
        self._see(running, trial, call)
        return model

    def version_of(self, call: Call, name: str, label: str) -> int | None:
        """The version of a prompt that this call gets in place of the label's (``pagoda.logic.prompts.resolving``)."""
        running = self._running.get((call.tenant, "prompt", f"{name}@{label}")) if self._running else None
        trial = None if running is None else running.assign(self._unit(running, call))
        if running is None or trial is None:
            return None
        self._see(running, trial, call)
        return running.version_of(trial)

    def _unit(self, running: Assignment, call: Call) -> str:
        return call.request_id if running.by_request else call.unit or call.user or call.key_id or _NOBODY

    def _see(self, running: Assignment, trial: Trial, call: Call) -> None:
        note = SLOT.get()
        if note is not None:
            if note.trials is None:
                note.trials = set()
            if running.id in note.trials:
                return
            note.trials.add(running.id)
        self._sightings.add(trial, running.design.metrics, call.request_id, note)

    async def refresh(self) -> None:
        """Read what runs now, if any of it was changed."""
        book = self._book()
        if book is None:
            return
        async with self._looking:
            try:
                revisions = await book.revisions()
                found = await book.running() if revisions != self._revisions else None
            except PagodaError as error:
                if self._works:
                    logger.warning("experiments go on as they were known: %s", error.message)
                self._works = False
                return
            self._works = True
            if found is None:
                return
            self._running = {(each.team, each.target.kind, each.target.key): each.assignment for each in found}
            self._adaptive = [each for each in found if each.design.allocation == "adaptive"]
            self._revisions = {experiment.id: experiment.revision for experiment in found}

    async def write(self) -> None:
        """Have what was seen in the records."""
        book = self._book()
        if book is None:
            return
        async with self._writing:
            await self._sightings.write(book.enter)

    async def _work(self) -> None:
        await self.write()
        now = asyncio.get_running_loop().time()
        if self._adaptive and now - self._adapted >= self._settings.adapt_seconds:
            self._adapted = now
            await self._adapt()

    async def _adapt(self) -> None:
        from pagoda.logic.experiments.allocation import adapt  # noqa: PLC0415  (it brings NumPy)

        book = self._book()
        for experiment in self._adaptive if book is not None else ():
            try:
                await adapt(book, experiment)  # type: ignore[arg-type]
            except PagodaError as error:
                logger.warning("the shares of %s stay as they are: %s", experiment.name, error.message)
