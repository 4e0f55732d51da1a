"""What routes need of the part that learns from answers: experiments, and what people say of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pagoda.logic.experiments.roster import Roster

if TYPE_CHECKING:  # they bring the database, which not every service opens
    from pagoda.logic.experiments.book import ExperimentBook


class Learning(Protocol):
    """What the application hands to the interface for this."""

    roster: Roster
    """The experiments that run now."""

    @property
    def experiments(self) -> ExperimentBook:
        """The experiments as they are kept."""
        ...
