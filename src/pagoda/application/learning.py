"""Experiments and what people say of answers, wired together for one process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import TYPE_CHECKING

from pagoda.core.settings import Settings
from pagoda.logic.experiments.roster import Roster
from pagoda.service.limits.prices import price_table

if TYPE_CHECKING:
    from pagoda.core.storage.store import Store
    from pagoda.logic.experiments.book import ExperimentBook


class Learning:
    """What stands behind ``interface.learning``. ``kept`` says whether there are records at all."""

    def __init__(self, settings: Settings, records: Callable[[], Awaitable[Store]], kept: Callable[[], bool]) -> None:
        self._records = records
        self._kept = kept
        self.roster = Roster(self._experiments_if_any, settings.experiments, price_table(settings.prices))

    async def start(self) -> None:
        """Know the experiments that run."""
        await self.roster.start()

    async def close(self) -> None:
        """Write what was seen."""
        await self.roster.close()

    @cached_property
    def experiments(self) -> ExperimentBook:
        """The experiments as they are kept."""
        from pagoda.logic.experiments.book import ExperimentBook  # noqa: PLC0415  (it brings the database)

        return ExperimentBook(self._records)

    def _experiments_if_any(self) -> ExperimentBook | None:
        return self.experiments if self._kept() else None
