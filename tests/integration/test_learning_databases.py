"""Experiments, feedback and reviews on both databases, with many at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import pytest_asyncio

from pagoda.application.keeping import nothing
from pagoda.core.errors import Conflict
from pagoda.core.setting_values import Secret
from pagoda.core.settings import Settings, Storage
from pagoda.core.storage.store import Store, open_store
from pagoda.logic.experiments.allocation import adapt
from pagoda.logic.experiments.book import ExperimentBook
from pagoda.logic.experiments.design import Design, Metric, Target, Variant
from pagoda.logic.experiments.sightings import outcome_rows
from pagoda.logic.experiments.verdict import look
from pagoda.logic.feedback.book import FeedbackBook
from pagoda.logic.feedback.saying import About, Saying
from pagoda.logic.reviews.book import Item, ReviewBook, Ruling

Opened: TypeAlias = Callable[[], Awaitable[Store]]

TARGET = Target(kind="model", name="support")
DESIGN = Design(
    variants=tuple(Variant(name=name, share=0.5, model=name) for name in ("now", "new")), metric=Metric(name="thumb")
)


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    url = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else ""
    async with open_store(Settings(home=tmp_path, storage=Storage(url=Secret(url)))) as store:

        async def give() -> Store:
            return store

        yield give


async def test_of_experiments_on_one_target_one_runs(opened: Opened) -> None:
    book = ExperimentBook(opened)
    made = [await book.create("local", f"e{number}", TARGET, DESIGN, 1.0) for number in range(4)]
    started = await asyncio.gather(*(book.start("local", each.id) for each in made), return_exceptions=True)
    assert sum(not isinstance(each, Exception) for each in started) == 1
    assert all(isinstance(each, Conflict) for each in started if isinstance(each, Exception))
    [running] = await book.running()
    moved = await asyncio.gather(*(book.adapt(running, (share, 1 - share)) for share in (0.2, 0.3, 0.4)))
    assert sorted(moved) == [False, False, True]


async def test_a_units_first_outcome_counts_whoever_writes_it(opened: Opened) -> None:
    book = ExperimentBook(opened)
    experiment = await book.start("local", (await book.create("local", "one", TARGET, DESIGN, 1.0)).id)
    trials = [trial for number in range(200) if (trial := experiment.assignment.assign(f"unit-{number}"))]
    at = datetime.now(UTC)
    exposures = [
        {"at": at, "experiment_id": trial.experiment, "team": "local", "unit": trial.unit, "variant": trial.variant,
         "slice": trial.slice, "request_id": f"r-{trial.unit}"}
        for trial in trials
    ]  # fmt: skip
    await book.enter(exposures, [])

    async def say(liked: Callable[[str], bool]) -> None:
        rows: list[dict[str, Any]] = []
        for trial in trials:
            rows += outcome_rows(trial, DESIGN.metrics, {"thumb": float(liked(trial.variant))}, at)
        await book.enter([], rows)

    await say(lambda variant: variant == "new")
    await asyncio.gather(*(say(lambda variant: variant == "now") for _ in range(3)))
    verdict = await look(book, "local", "one")
    assert sum(verdict.units.values()) == 200
    assert (verdict.winner, verdict.primary.comparisons[0].says) == ("new", "better")
    assert [arm.mean for arm in verdict.primary.arms] == [0, 1]
    feedback = FeedbackBook(opened, book, nothing, nothing)
    about, word = About(request=f"r-{trials[0].unit}"), Saying(thumb="up")
    given = await asyncio.gather(*(feedback.give("local", "ann", about, word) for _ in range(6)))
    assert sorted(each.repeated for each in given) == [False] + [True] * 5
    assert len({each.record.id for each in given}) == 1


async def test_an_adaptive_experiment_is_shared_out_anew_by_its_outcomes(opened: Opened) -> None:
    book = ExperimentBook(opened)
    design = Design(variants=DESIGN.variants, metric=DESIGN.metric, unit="request", allocation="adaptive")
    before = await book.start("local", (await book.create("local", "one", TARGET, design, 1.0)).id)
    assert not await adapt(book, before)  # nothing is known yet
    at, rows = datetime.now(UTC), []
    for number in range(100):
        trial = before.assignment.assign(f"r{number}")
        assert trial is not None
        rows += outcome_rows(trial, design.metrics, {"thumb": float(trial.variant == "new")}, at)
    await book.enter([], rows)
    assert await adapt(book, before)
    after = await book.get("local", "one")
    assert [each.shares for each in after.slices] == [(0.5, 0.5), pytest.approx((0.1, 0.9))]
    assert not await adapt(book, after)
    assert (await look(book, "local", "one")).winner == "new"


async def test_a_crowd_of_reviewers_shares_the_queue(opened: Opened) -> None:
    queue = ReviewBook(opened)

    def item(number: int) -> Item:
        return Item(team="local", request_id=f"r{number}", reason="sample", detail={}, needed=2, answer="?", model="m")

    await asyncio.gather(*(queue.enter(item(number % 5)) for number in range(20)))
    people = [f"p{number}" for number in range(12)]
    claims = await asyncio.gather(*(queue.claim("local", name, 60) for name in people))
    taken = [claim.record.id for claim in claims if claim is not None]
    assert len(taken) == 10
    assert all(taken.count(review) == 2 for review in taken)
    ruling = Ruling(decision="approve")
    both = [(name, claim.record.id) for name, claim in zip(people, claims, strict=True) if claim is not None]
    await asyncio.gather(*(queue.decide("local", review, name, ruling) for name, review in both))
    assert [review.record.state for review in await queue.find("local")] == ["approved"] * 5
    assert await queue.claim("local", "late", 60) is None
