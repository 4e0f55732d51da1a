"""Prompts in the records: versions, labels that move and go back, and the index that follows them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pagoda.application.prompting import PromptRoom
from pagoda.application.records import Records
from pagoda.core.errors import Conflict, InvalidRequest, NotFound, StoreError
from pagoda.core.settings import Settings
from pagoda.core.types import Call
from pagoda.logic.prompts import index
from pagoda.logic.prompts.book import Author, PromptBook
from pagoda.logic.prompts.file import read_prompt
from pagoda.logic.prompts.index import PromptIndex
from pagoda.logic.prompts.prompt import PromptReference
from pagoda.logic.prompts.resolving import reference_from
from tests.unit.logic.prompts.sheets import SENTIMENT

BLUE = Author("blue")


@pytest_asyncio.fixture
async def room(settings: Settings) -> AsyncIterator[PromptRoom]:
    records = Records(settings)
    await records.open()
    room = PromptRoom(records, settings)
    await room.index.refresh()
    yield room
    await records.close()


async def keep(room: PromptRoom, *jokes: str, author: Author = BLUE) -> None:
    for joke in jokes:
        await room.book.save(read_prompt(SENTIMENT.replace("A joy", joke)), author)
    await room.index.refresh()


async def meant(room: PromptRoom, text: str, tenant: str = "blue") -> str:
    return (await room.index.resolve(reference_from(text), Call(tenant=tenant))).reference


async def test_versions_are_numbered_and_equal_ones_are_one(room: PromptRoom) -> None:
    first, saved = await room.book.save(read_prompt(SENTIMENT), BLUE)
    assert (first.version, saved) == (1, True)
    again, saved = await room.book.save(read_prompt("# remark\n" + SENTIMENT), BLUE)
    assert (again.version, saved) == (1, False)
    other, saved = await room.book.save(read_prompt(SENTIMENT.replace("A joy", "Fun")), BLUE)
    assert (other.version, saved) == (2, True)
    back, saved = await room.book.save(read_prompt(SENTIMENT), BLUE)
    assert (back.version, saved) == (3, True), "what was said before is said anew"
    assert [each.version for each in await room.book.versions("blue", "sentiment")] == [3, 2, 1]


async def test_a_reference_means_production_or_else_the_newest(room: PromptRoom) -> None:
    await keep(room, "one", "two", "three")
    assert await meant(room, "sentiment") == "sentiment@3"
    await room.book.move("sentiment", "production", 1, BLUE)
    await room.book.move("sentiment", "staging", 2, BLUE)
    await room.index.refresh()
    assert [await meant(room, f"sentiment{which}") for which in ("", "@production", "@staging", "@3")] == [
        "sentiment@1",
        "sentiment@1",
        "sentiment@2",
        "sentiment@3",
    ]
    for unknown in ("sentiment@canary", "sentiment@9", "nothing"):
        with pytest.raises(NotFound):
            await meant(room, unknown)


async def test_labels_move_with_history_and_go_back_step_by_step(room: PromptRoom) -> None:
    await keep(room, "one", "two", "three")
    for version in (1, 2, 3):
        await room.book.move("sentiment", "production", version, Author("blue", "key-7", f"try {version}"))
    assert (await room.book.roll_back("sentiment", "production", BLUE)).version == 2
    assert (await room.book.roll_back("sentiment", "production", BLUE)).version == 1
    with pytest.raises(Conflict, match="nothing to go back to"):
        await room.book.roll_back("sentiment", "production", BLUE)
    await room.book.move("sentiment", "production", 3, BLUE)
    assert (await room.book.roll_back("sentiment", "production", BLUE)).version == 1
    lines = await room.book.history("blue", "sentiment", "production")
    assert [(line.action, line.before, line.version) for line in reversed(lines)] == [
        ("moved", None, 1),
        ("moved", 1, 2),
        ("moved", 2, 3),
        ("rolled-back", 3, 2),
        ("rolled-back", 2, 1),
        ("moved", 1, 3),
        ("rolled-back", 3, 1),
    ]
    assert (lines[-1].who, lines[-1].note) == ("key-7", "try 1")


async def test_of_two_who_move_a_label_at_once_one_is_refused(room: PromptRoom) -> None:
    await keep(room, "one", "two", "three")
    await room.book.move("sentiment", "production", 1, BLUE)
    moves = [room.book.move("sentiment", "production", version, BLUE, expected=1) for version in (2, 3)]
    outcomes = await asyncio.gather(*moves, return_exceptions=True)
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 1


async def test_labels_are_removed_and_wrong_ones_refused(room: PromptRoom) -> None:
    await keep(room, "one", "two")
    await room.book.move("sentiment", "production", 1, BLUE)
    await room.book.remove("sentiment", "production", BLUE)
    await room.index.refresh()
    assert await meant(room, "sentiment") == "sentiment@2"
    for wrong in ("Production", "a b", ""):
        with pytest.raises(InvalidRequest):
            await room.book.move("sentiment", wrong, 1, BLUE)
    for missing in (room.book.move("sentiment", "x", 9, BLUE), room.book.roll_back("sentiment", "x", BLUE)):
        with pytest.raises(NotFound):
            await missing
    assert (await room.book.roll_back("sentiment", "production", BLUE)).version == 1, "a removal is taken back too"


async def test_teams_see_their_own_prompts_and_the_packaged_ones(room: PromptRoom) -> None:
    await keep(room, "one")
    with pytest.raises(NotFound):
        await meant(room, "sentiment", tenant="red")
    assert await meant(room, "maths", tenant="red") == "maths@1"
    own = re.sub("name: sentiment", "name: maths", SENTIMENT)
    await room.book.save(read_prompt(own), BLUE)
    await room.index.refresh()
    blue = await room.index.resolve(PromptReference(name="maths"), Call(tenant="blue"))
    red = await room.index.resolve(PromptReference(name="maths"), Call(tenant="red"))
    assert (blue.tenant, red.tenant) == ("blue", "")


async def test_another_process_follows_and_reads_nothing_for_a_request(
    room: PromptRoom, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep(room, "one", "two")
    await room.book.move("sentiment", "production", 1, BLUE)
    records = Records(settings)
    other = PromptRoom(records, settings)
    await other.index.refresh()
    assert await meant(other, "sentiment") == "sentiment@1"
    await room.book.move("sentiment", "production", 2, BLUE)
    assert await meant(other, "sentiment") == "sentiment@1"
    await other.index.refresh()

    async def refuse(*args: object) -> None:
        raise AssertionError("a request read the database")

    monkeypatch.setattr(PromptBook, "get", refuse)
    assert await meant(other, "sentiment") == "sentiment@2", "it was fetched before it was meant"
    await records.close()


async def test_a_database_that_is_away_leaves_what_is_at_hand(room: PromptRoom) -> None:
    await keep(room, "one")

    class Away:
        async def changed_since(self, *seen: int) -> None:
            raise StoreError("away", retryable=True)

        last_change = heads = changed_since

    assert await meant(room, "sentiment") == "sentiment@1"
    room.index._book = Away  # type: ignore[assignment]
    await room.index.refresh()
    assert await meant(room, "sentiment") == "sentiment@1"
    never_read = PromptIndex(Away, 1.0)  # type: ignore[arg-type]
    await never_read.refresh()
    with pytest.raises(StoreError):
        await never_read.resolve(PromptReference(name="sentiment"), Call())


async def test_a_database_that_hangs_holds_nothing_up_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(index, "_PATIENCE_SECONDS", 0.05)

    class Hanging:
        async def last_change(self) -> int:
            await asyncio.Event().wait()
            return 0

    hanging = PromptIndex(Hanging, 0.01)  # type: ignore[arg-type]
    await asyncio.wait_for(hanging.start(), 10)
    with pytest.raises(StoreError):
        await asyncio.wait_for(hanging.resolve(PromptReference(name="maths"), Call()), 10)
    await hanging.close()
    nothing = PromptIndex(lambda: None, 0.01)
    await nothing.start()
    assert (await nothing.resolve(PromptReference(name="maths"), Call())).tenant == ""
    await nothing.close()


async def test_an_experiment_joins_at_the_one_seam(room: PromptRoom) -> None:
    await keep(room, "one", "two")
    await room.book.move("sentiment", "production", 1, BLUE)
    await room.index.refresh()
    asked = []

    def choose(call: Call, name: str, label: str) -> int | None:
        asked.append((call.unit, name, label))
        return 2 if call.unit == "u2" else None

    room.index.chooser = choose
    versions = [
        (await room.index.resolve(reference_from(text), Call(tenant="blue", unit=unit))).version
        for text, unit in [("sentiment", "u1"), ("sentiment@production", "u2"), ("sentiment@1", "u2")]
    ]
    assert versions == [1, 2, 1]
    assert asked == [("u1", "sentiment", "production"), ("u2", "sentiment", "production")]
