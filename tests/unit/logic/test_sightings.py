"""What is seen of experiments: written when a request is over, kept while the database is away, nothing twice."""

from __future__ import annotations

from typing import Any

import pytest

from pagoda.core.errors import StoreError
from pagoda.core.settings import Experiments, Prices
from pagoda.core.types import Call, Delta, Finish, Started, Usage
from pagoda.logic.experiments.assignment import Trial
from pagoda.logic.experiments.roster import Roster
from pagoda.logic.experiments.sightings import Sightings
from pagoda.service.limits.prices import price_table
from pagoda.service.note import SLOT, Note, answer_id, request_of
from tests.unit.logic.test_assignment import design, rule

TRIAL = Trial("exp-1", "local", "digest", "a", 0)
METRICS = {"latency": 30.0, "tokens": 5.0, "cost": 1.0, "refusal": 1.0, "error": 1.0}


class Table:
    """The records, which may be away."""

    def __init__(self) -> None:
        self.away = False
        self.exposures: list[dict[str, Any]] = []
        self.outcomes: dict[str, float] = {}

    async def enter(self, exposures: list[dict[str, Any]], outcomes: list[dict[str, Any]]) -> None:
        if self.away:
            raise StoreError("away", retryable=True)
        self.exposures += exposures
        self.outcomes |= {row["metric"]: row["value"] for row in outcomes}


def note_of(text: str = "Fine.", finish: str = "stop") -> Note:
    note = Note("req-" + "1" * 32)
    note.trials = {"exp-1"}
    for event in (Started("m", "fake"), Delta(0, text), Finish(0, finish), Usage(100, 9)):  # type: ignore[arg-type]
        note.take(event)
    return note


async def test_a_request_is_entered_at_once_and_measured_when_it_is_over() -> None:
    table, seen = Table(), Sightings(price_table(Prices(models={"m": "1000/1000/2000"})))
    note = note_of()
    seen.add(TRIAL, METRICS, "r1", note)
    await seen.write(table.enter)
    assert (len(table.exposures), table.outcomes) == (1, {})
    note.end(200)
    await seen.write(table.enter)
    await seen.write(table.enter)
    assert len(table.exposures) == 1
    assert table.outcomes.pop("latency") == pytest.approx(note.spent)
    assert table.outcomes == {"tokens": 5.0, "cost": pytest.approx(0.118), "refusal": 0.0, "error": 0.0}


async def test_failures_refusals_and_clients_that_left_are_told_apart() -> None:
    for note, status, expected in (
        (note_of(), 503, {"error": 1.0}),
        (note_of(), 499, {}),
        (note_of("I'm sorry, but I can't help with that."), 200, {"refusal": 1.0, "error": 0.0}),
        (note_of("", "content_filter"), 200, {"refusal": 1.0, "error": 0.0}),
    ):
        table, seen = Table(), Sightings(price_table(Prices()))
        note.end(status)
        seen.add(TRIAL, {"refusal": 1.0, "error": 1.0}, "r1", note)
        await seen.write(table.enter)
        assert table.outcomes == expected


async def test_nothing_is_lost_or_written_twice_while_the_database_is_away() -> None:
    table, seen = Table(), Sightings(price_table(Prices()))
    table.away = True
    notes = [note_of() for _ in range(3)]
    for number, note in enumerate(notes):
        seen.add(TRIAL, METRICS, f"r{number}", note)
        note.end(200)
        await seen.write(table.enter)
    table.away = False
    await seen.write(table.enter)
    assert [row["request_id"] for row in table.exposures] == ["r0", "r1", "r2"]


async def test_experiments_go_on_as_they_were_known_while_the_database_is_away() -> None:
    class Away:
        async def revisions(self) -> Any:
            raise StoreError("away", retryable=True)

    roster = Roster(lambda: Away(), Experiments(), price_table(Prices()))  # type: ignore[arg-type, return-value]
    roster._running = {("local", "model", "support"): rule(design(0.5, 0.5))}
    before = roster.model_of(Call(unit="somebody"), "support", None)
    await roster.refresh()
    assert roster.model_of(Call(unit="somebody"), "support", None) == before


def test_an_answers_id_tells_its_request_and_foreign_ids_stay_what_they_are() -> None:
    ours = "req-" + "a1" * 16
    token = SLOT.set(Note(ours))
    assert request_of(answer_id("chatcmpl")) == ours
    SLOT.set(Note("theirs-1"))
    assert request_of(answer_id("msg")) != "theirs-1"
    SLOT.reset(token)
    assert request_of(ours) == ours
    assert request_of("theirs-1") == "theirs-1"
