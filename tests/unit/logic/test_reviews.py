"""The review queue: one item a request, claims that end, as many people as are needed, ties that ask one more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from pagoda.core.errors import Conflict, InvalidRequest, NotFound
from pagoda.core.settings import Settings
from pagoda.core.storage.store import Store, open_store
from pagoda.logic.reviews.book import Item, ReviewBook, Ruling
from pagoda.logic.reviews.standing import standing

APPROVE, REJECT = Ruling(decision="approve"), Ruling(decision="reject", reason="wrong")


@pytest_asyncio.fixture
async def queue(settings: Settings) -> AsyncIterator[ReviewBook]:
    async with open_store(settings) as store:

        async def opened() -> Store:
            return store

        yield ReviewBook(opened)


def item(request_id: str, needed: int = 1, **fields: Any) -> Item:
    given: dict[str, Any] = {"team": "blue", "reason": "sample", "detail": {}, "answer": "An answer."}
    return Item(**(given | {"request_id": request_id, "needed": needed} | fields))


async def test_an_answer_enters_once_with_all_its_reasons(queue: ReviewBook) -> None:
    first = await queue.enter(item("one", answer=None))
    again = await asyncio.gather(*(queue.enter(item("one", reason="complaint", detail={"n": 1})) for _ in range(5)))
    assert {review.record.id for review in again} == {first.record.id}
    [found] = await queue.find("blue")
    assert set(found.record.reasons) == {"sample", "complaint"}
    assert found.record.answer == "An answer."
    assert await queue.find("blue", reason="hold") == []
    assert await queue.find("red") == []
    with pytest.raises(NotFound):
        await queue.get("red", first.record.id)


async def test_a_claim_keeps_others_away_until_it_ends(queue: ReviewBook, monkeypatch: pytest.MonkeyPatch) -> None:
    one = (await queue.enter(item("one"))).record.id
    two = (await queue.enter(item("two"))).record.id
    claims = await asyncio.gather(*(queue.claim("blue", name, 60) for name in ("ann", "bob", "cat")))
    assert sorted(claim.record.id for claim in claims if claim is not None) == sorted([one, two])
    mine = await queue.claim("blue", "ann", 60)
    assert mine is not None  # her own again
    with pytest.raises(Conflict, match="claimed by others"):
        await queue.claim("blue", "dan", 60, one)
    with pytest.raises(Conflict, match="claimed"):
        await queue.decide("blue", one, "dan", APPROVE)
    later = datetime.now(UTC) + timedelta(seconds=61)
    monkeypatch.setattr("pagoda.logic.reviews.book.now", lambda: later)
    freed = await queue.claim("blue", "dan", 60, one)
    assert freed is not None
    assert (await queue.decide("blue", one, "dan", APPROVE)).record.state == "approved"


async def test_as_many_as_are_needed_decide_and_a_tie_asks_one_more(queue: ReviewBook) -> None:
    one = (await queue.enter(item("one", needed=2))).record.id
    for name, ruling in (("ann", APPROVE), ("bob", REJECT)):
        assert (await queue.claim("blue", name, 60)) is not None
        assert (await queue.decide("blue", one, name, ruling)).record.state == "waiting"
    assert (await queue.claim("blue", "ann", 60)) is None
    with pytest.raises(Conflict, match="judged this review already"):
        await queue.decide("blue", one, "ann", REJECT)
    decided = await queue.decide("blue", one, "cat", REJECT)
    assert (decided.record.state, decided.final) == ("rejected", None)
    with pytest.raises(Conflict, match="is decided"):
        await queue.decide("blue", one, "dan", APPROVE)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"decision": "edit"}, "edited"),
        ({"decision": "approve", "edited": "x"}, "edited"),
        ({"decision": "reject"}, "reason"),
    ],
)
def test_a_ruling_says_what_it_must(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Ruling(**fields)
    assert refused.value.param == param


async def test_judges_are_held_beside_people_and_those_who_could_not_judge_stand_apart(queue: ReviewBook) -> None:
    said = [("approve", 0.9, APPROVE), ("approve", 0.8, APPROVE), ("reject", 0.2, REJECT), ("unsure", None, APPROVE)]
    for number, (decision, score, ruling) in enumerate(said):
        one = (await queue.enter(item(f"r{number}"))).record.id
        await queue.note_judge("blue", one, "judge:small", decision, score, "because")
        await queue.decide("blue", one, "ann", ruling)
    found = standing(await queue.judged("blue"))
    [judge] = found.judges
    assert (judge.items, judge.unsure, judge.agreement) == (3, 1, 1.0)
    assert judge.kappa == pytest.approx(1)
    assert judge.calibration is not None
    assert (judge.calibration(0.1), judge.calibration(0.85)) == (0, 1)
    assert (found.items, found.alpha, found.pairs) == (0, None, ())
