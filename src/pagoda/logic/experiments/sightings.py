"""What was seen of experiments while requests ran: kept in memory, written in batches, off the request's path.

A request is entered with its variant at once, with its automatic outcomes when it is over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pagoda.core.errors import StoreError
from pagoda.logic.experiments.assignment import Trial
from pagoda.logic.experiments.refusal import refuses
from pagoda.service.keys.key import NANO
from pagoda.service.limits.prices import PriceTable
from pagoda.service.note import Note

logger = logging.getLogger(__name__)

MOST_WAITING = 20_000
CLIENT_LEFT = 499
_FAILED = 400


@dataclass(slots=True)
class Sighting:
    """A request under an experiment. ``note`` follows it until it is over; ``None`` where it came without HTTP."""

    trial: Trial
    metrics: Mapping[str, float]
    request_id: str
    note: Note | None
    at: datetime
    entered: bool = False


class Sightings:
    """The sightings of one process."""

    def __init__(self, prices: PriceTable) -> None:
        self._prices = prices
        self._waiting: list[Sighting] = []

    def add(self, trial: Trial, metrics: Mapping[str, float], request_id: str, note: Note | None) -> None:
        """A request was given a variant."""
        self._waiting.append(Sighting(trial, metrics, request_id, note, datetime.now(UTC)))

    async def write(self, enter: Callable[[list[dict[str, Any]], list[dict[str, Any]]], Any]) -> None:
        """Have rows entered; they go on waiting where the database does not answer, the newest first to be kept."""
        if not self._waiting:
            return
        batch, self._waiting = self._waiting, []
        over: list[Sighting] = []
        going: list[Sighting] = []
        for each in batch:  # sorted once: a request may end while this is being written
            (over if each.note is None or each.note.status else going).append(each)
        exposures = [_exposure(each) for each in batch if not each.entered]
        outcomes = [row for each in over for row in self._outcomes(each)]
        try:
            if exposures or outcomes:
                await enter(exposures, outcomes)
        except StoreError as error:
            self._keep(batch)
            logger.warning("what was seen of experiments waits to be written: %s", error.message)
            return
        except BaseException:
            self._keep(batch)
            raise
        for each in going:
            each.entered = True
        self._keep(going)

    def _keep(self, batch: list[Sighting]) -> None:
        self._waiting = [*batch, *self._waiting][-MOST_WAITING:]

    def _outcomes(self, seen: Sighting) -> list[dict[str, Any]]:
        measured = {} if seen.note is None else self._measured(seen.note)
        wanted = {name: measured[name] for name in seen.metrics if name in measured}
        return outcome_rows(seen.trial, seen.metrics, wanted, seen.at)

    def _measured(self, note: Note) -> dict[str, float]:
        """The automatic metrics of a request that is over; of one whose client left nobody knows."""
        if note.status == CLIENT_LEFT:
            return {}
        if note.status >= _FAILED:
            return {"error": 1.0}
        money = self._prices.of(note.model).cost(note.prompt, note.cached, note.completion) / NANO
        return {
            "error": 0.0,
            "latency": note.spent,
            "first_token": note.spent if note.first is None else note.first - note.began,
            "tokens": float(note.completion),
            "cost": 0.0 if note.cache == "hit" else money,
            "refusal": float(note.finish == "content_filter" or refuses(note.opening)),
        }


def outcome_rows(
    trial: Trial, metrics: Mapping[str, float], values: Mapping[str, float], at: datetime
) -> list[dict[str, Any]]:
    """Outcomes of a unit as rows; ``metrics`` holds the largest value of each that counts."""
    return [
        {
            "at": at,
            "experiment_id": trial.experiment,
            "metric": name,
            "unit": trial.unit,
            "variant": trial.variant,
            "slice": trial.slice,
            "value": min(max(value, 0.0), metrics[name]),
        }
        for name, value in values.items()
        if name in metrics
    ]


def _exposure(seen: Sighting) -> dict[str, Any]:
    return {
        "at": seen.at,
        "experiment_id": seen.trial.experiment,
        "team": seen.trial.team,
        "unit": seen.trial.unit,
        "variant": seen.trial.variant,
        "slice": seen.trial.slice,
        "request_id": seen.request_id,
    }
