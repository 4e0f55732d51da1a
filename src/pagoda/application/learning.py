"""What is learnt from answers, wired together for one process: experiments, feedback, reviews, quality."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import TYPE_CHECKING

from pagoda.application.records import Records
from pagoda.core.ports import Inference
from pagoda.core.settings import Settings
from pagoda.logic.experiments.roster import Roster
from pagoda.logic.quality.judging import ModelJudge
from pagoda.logic.quality.watch import Watch
from pagoda.service.limits.prices import price_table
from pagoda.service.telemetry import Telemetry

if TYPE_CHECKING:
    from pagoda.logic.experiments.book import ExperimentBook
    from pagoda.logic.feedback.book import FeedbackBook
    from pagoda.logic.feedback.complaints import Complaints
    from pagoda.logic.reviews.book import Item, Review, ReviewBook

_GRACE_SECONDS = 0.5


class Learning:
    """What stands behind ``interface.learning``.

    ``flush`` has written what else this process holds of requests; ``door`` gives the door for judges.
    """

    def __init__(
        self,
        settings: Settings,
        telemetry: Telemetry,
        records: Records,
        flush: Callable[[], Awaitable[None]],
        door: Callable[[], Inference],
    ) -> None:
        self._settings = settings
        self._records = records
        self._flush = flush
        self.roster = Roster(self._experiments_if_any, settings.experiments, price_table(settings.prices))
        chosen = settings.quality
        judge = ModelJudge(door, chosen.judge, chosen.criteria) if chosen.judge else None
        self.watch = Watch((chosen, settings.reviews), telemetry, self._enter, judge)

    async def start(self) -> None:
        """Know the experiments that run, and look at answers."""
        await self.roster.start()
        self.watch.start()

    async def close(self) -> None:
        """Write what was seen."""
        await self.watch.close()
        await self.roster.close()

    @cached_property
    def experiments(self) -> ExperimentBook:
        """The experiments as they are kept."""
        from pagoda.logic.experiments.book import ExperimentBook  # noqa: PLC0415  (it brings the database)

        return ExperimentBook(self._records.open)

    @cached_property
    def reviews(self) -> ReviewBook:
        """The review queue."""
        from pagoda.logic.reviews.book import ReviewBook  # noqa: PLC0415

        return ReviewBook(self._records.open)

    @cached_property
    def feedback(self) -> FeedbackBook:
        """What people say of answers."""
        from pagoda.logic.feedback.book import FeedbackBook  # noqa: PLC0415

        return FeedbackBook(self._records.open, self.experiments, self._settle, self._wait)

    @cached_property
    def complaints(self) -> Complaints:
        """What complaints set off."""
        from pagoda.logic.feedback.complaints import Complaints  # noqa: PLC0415

        chosen = self._settings.reviews
        return Complaints(self.feedback, self.reviews, wanted=chosen.complaints, reviewers=chosen.reviewers)

    def _experiments_if_any(self) -> ExperimentBook | None:
        return self.experiments if self._records.exist else None

    async def _enter(self, item: Item) -> Review:
        return await self.reviews.enter(item)

    async def _settle(self) -> None:
        await self.roster.write()
        await self._flush()

    async def _wait(self) -> None:
        """As long as another process of this home, or another service, may hold back what it saw."""
        held = max(self._settings.limits.write_seconds, self._settings.experiments.write_seconds)
        await asyncio.sleep(held + _GRACE_SECONDS)
