"""What routes need of the part that learns from answers: experiments, feedback and reviews."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pagoda.logic.experiments.roster import Roster

if TYPE_CHECKING:  # they bring the database, which not every service opens
    from pagoda.logic.experiments.book import ExperimentBook
    from pagoda.logic.feedback.book import FeedbackBook
    from pagoda.logic.feedback.complaints import Complaints
    from pagoda.logic.reviews.book import ReviewBook


class Learning(Protocol):
    """What the application hands to the interface for this."""

    roster: Roster
    """The experiments that run now."""

    @property
    def experiments(self) -> ExperimentBook:
        """The experiments as they are kept."""
        ...

    @property
    def feedback(self) -> FeedbackBook:
        """What people say of answers."""
        ...

    @property
    def complaints(self) -> Complaints:
        """What complaints set off."""
        ...

    @property
    def reviews(self) -> ReviewBook:
        """The review queue."""
        ...
