"""Documents taken in, kept, searched and asked: exact to the character, by one team, as the files are now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pagoda.application.prompting import open_prompts
from pagoda.application.retrieving import Retrieval
from pagoda.core.errors import Conflict, InvalidRequest, ModelError, NotFound
from pagoda.core.settings import Settings
from pagoda.core.types import Call, Embed, Embeddings
from pagoda.logic.retrieval.answering import SourcedAnswer, check_citations
from pagoda.logic.retrieval.collection import Plan
from pagoda.logic.retrieval.ingestion import Report
from tests.services import Service, fake_model, running

PLAN = Plan(model="fake-embed", limit=80, overlap=10)
RULES = [
    {"contains": "月亮", "text": "文档中没有说明。"},
    {"contains": "moon", "text": "It is far [1]. It is round [9]."},
]
GUIDE = "# Guide\n\nKeys open doors.\n\n## Revoke\n\nA revoked key opens nothing; the moon is far away.\n"
CALL = Call(tenant="blue")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(module_settings: Settings) -> AsyncIterator[Service]:
    models = [fake_model(rules=RULES, text="no rule"), fake_model("fake-embed", task="embedding")]
    async with running(module_settings, models) as service:
        yield service


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def retrieval(service: Service) -> Retrieval:
    platform = service.platform
    return Retrieval(platform.settings, platform.records, lambda: platform.inference)


def quiet(stage: str, done: int, total: int | None) -> None:
    assert total is not None
    assert done <= total


async def take(retrieval: Retrieval, folder: Path, name: str, call: Call = CALL) -> Report:
    collection = await retrieval.book.ensure(call.tenant, name, PLAN)
    return await retrieval.ingestion.take(collection, [folder], call, quiet)


async def ask(service: Service, retrieval: Retrieval, name: str, text: str, floor: float = -1) -> SourcedAnswer:
    async with open_prompts(service.platform.settings) as room:
        return await retrieval.ask((name, text), room.index, CALL, floor=floor)


async def test_what_is_found_is_exactly_the_characters_of_its_document(retrieval: Retrieval, tmp_path: Path) -> None:
    (tmp_path / "guide.md").write_text(GUIDE, encoding="utf-8")
    (tmp_path / "书.txt").write_bytes("量子计算机很快。月亮很远。".encode("gb18030"))
    report = await take(retrieval, tmp_path, "exact")
    assert (len(report.added), report.failed) == (2, [])
    for mode in ("fused", "lexical", "dense"):
        hits = await retrieval.searcher.search("exact", "revoked keys", CALL, mode=mode)
        assert hits
        for hit in hits:
            text = GUIDE if hit.passage.source.endswith("guide.md") else "量子计算机很快。月亮很远。"
            assert hit.passage.text == text[hit.passage.start : hit.passage.end]
    first = (await retrieval.searcher.search("exact", "revoked", CALL, mode="lexical"))[0]
    assert (first.passage.title, first.passage.heading) == ("Guide", "Guide > Revoke")
    chinese = await retrieval.searcher.search("exact", "量子", CALL, mode="lexical")
    assert [Path(hit.passage.source).name for hit in chinese] == ["书.txt"]
    rows = await retrieval.book.documents(await retrieval.book.get("blue", "exact"))
    assert {(Path(row.source).name, row.encoding) for row in rows} == {("guide.md", "utf-8"), ("书.txt", "gb18030")}


async def test_only_what_changed_is_embedded_and_what_vanished_leaves(retrieval: Retrieval, tmp_path: Path) -> None:
    for name, text in (("a.txt", "apples"), ("b.txt", "bananas"), ("c.txt", "cherries")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / ".hidden.txt").write_text("hidden", encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert len((await take(retrieval, tmp_path, "changes")).added) == 3
    assert await retrieval.searcher.search("changes", "banana", CALL, mode="lexical")
    (tmp_path / "b.txt").write_text("blueberries", encoding="utf-8")
    (tmp_path / "c.txt").unlink()
    report = await take(retrieval, tmp_path, "changes")
    assert [Path(name).name for name in report.changed] == ["b.txt"]
    assert [Path(name).name for name in report.removed] == ["c.txt"]
    assert (report.unchanged, report.chunks, report.added) == (1, 1, [])
    assert not await retrieval.searcher.search("changes", "bananas cherries", CALL, mode="lexical")
    assert await retrieval.searcher.search("changes", "blueberries", CALL, mode="lexical")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "e.txt").write_text("elder", encoding="utf-8")
    collection = await retrieval.book.get("blue", "changes")
    report = await retrieval.ingestion.take(collection, [tmp_path / "d"], CALL, quiet)
    assert (len(report.added), report.removed) == (1, []), "what lies elsewhere stays"


async def test_what_cannot_be_read_is_named_and_the_rest_goes_on(retrieval: Retrieval, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "c.txt").write_text("cherries", encoding="utf-8")
    report = await take(retrieval, tmp_path, "broken")
    assert [Path(name).name for name in report.added] == ["c.txt"]
    assert [(Path(name).name, name in said) for name, said in report.failed] == [("a.txt", True), ("b.pdf", True)]
    (tmp_path / "c.txt").write_bytes(b"\0\0\0")
    report = await take(retrieval, tmp_path, "broken")
    assert len(report.failed) == 3
    assert not await retrieval.searcher.search("broken", "cherries", CALL), "what it held before has left"
    with pytest.raises(InvalidRequest, match="no file or folder"):
        await take(retrieval, tmp_path / "nowhere", "broken")


class Breaking:
    """A door that breaks after some embeddings."""

    def __init__(self, service: Service, left: int) -> None:
        self._door, self._left = service.platform.inference, left

    async def embed(self, request: Embed, call: Call) -> Embeddings:
        self._left -= 1
        if self._left < 0:
            raise ModelError("broken")
        return await self._door.embed(request, call)


async def test_work_that_broke_off_goes_on_where_it_was(service: Service, tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text(f"number {number}", encoding="utf-8")
    platform = service.platform
    door: Any = Breaking(service, 2)
    broken = Retrieval(platform.settings, platform.records, lambda: door)
    with pytest.raises(ModelError, match="broken"):
        await take(broken, tmp_path, "resumed")
    whole = Retrieval(platform.settings, platform.records, lambda: platform.inference)
    report = await take(whole, tmp_path, "resumed")
    assert (report.unchanged, len(report.added)) == (2, 2)
    assert len(await whole.searcher.search("resumed", "number", CALL, mode="lexical")) == 4


async def test_teams_never_see_each_others_documents(retrieval: Retrieval, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the secret of blue", encoding="utf-8")
    await take(retrieval, tmp_path, "shared-name")
    red = Call(tenant="red")
    with pytest.raises(NotFound, match="shared-name"):
        await retrieval.searcher.search("shared-name", "secret", red)
    (tmp_path / "a.txt").write_text("the secret of red", encoding="utf-8")
    await take(retrieval, tmp_path, "shared-name", red)
    for call in (CALL, red, CALL):
        hits = await retrieval.searcher.search("shared-name", "secret", call)
        assert [hit.passage.text for hit in hits] == [f"the secret of {call.tenant}"]
    assert "shared-name" in [each.name for each in await retrieval.book.collections("red")]
    assert await retrieval.book.delete("red", "shared-name") == 1
    assert await retrieval.book.collections("red") == []
    assert await retrieval.searcher.search("shared-name", "secret", CALL)


async def test_a_deleted_collection_is_gone_and_its_name_is_free(retrieval: Retrieval, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("before", encoding="utf-8")
    await take(retrieval, tmp_path, "again")
    old = await retrieval.book.get("blue", "again")
    assert await retrieval.searcher.search("again", "before", CALL)
    assert await retrieval.book.delete("blue", "again") == 1
    with pytest.raises(NotFound):
        await retrieval.ingestion.take(old, [tmp_path], CALL, quiet)
    new = await retrieval.book.ensure("blue", "again", PLAN)
    assert new.id != old.id
    assert await retrieval.searcher.search("again", "before", CALL) == []
    with pytest.raises(NotFound):
        await retrieval.ingestion.take(old, [tmp_path], CALL, quiet)
    with pytest.raises(Conflict, match="chunks of 80"):
        await retrieval.book.ensure("blue", "again", replace(PLAN, limit=90))
    with pytest.raises(InvalidRequest, match="no name of a collection"):
        await retrieval.book.ensure("blue", "../up")


async def test_many_may_search_while_documents_change(retrieval: Retrieval, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("stays", encoding="utf-8")
    await take(retrieval, tmp_path, "busy")

    async def change() -> None:
        for number in range(5):
            (tmp_path / "b.txt").write_text(f"changes {number}", encoding="utf-8")
            await take(retrieval, tmp_path, "busy")

    async def look() -> list[int]:
        return [len(await retrieval.searcher.search("busy", "stays", CALL, mode="lexical")) for _ in range(10)]

    _, *seen = await asyncio.gather(change(), look(), look())
    assert seen == [[1] * 10, [1] * 10]


@pytest.mark.parametrize(
    ("query", "limit", "mode"), [(" ", 5, "fused"), ("q", 0, "fused"), ("q", 101, "fused"), ("q", 5, "x")]
)
async def test_a_search_that_cannot_be_is_refused(retrieval: Retrieval, query: str, limit: int, mode: str) -> None:
    with pytest.raises(InvalidRequest):
        await retrieval.searcher.search("busy", query, CALL, limit=limit, mode=mode)  # type: ignore[arg-type]


async def test_an_answer_names_the_characters_it_rests_on(
    service: Service, retrieval: Retrieval, tmp_path: Path
) -> None:
    (tmp_path / "guide.md").write_text(GUIDE, encoding="utf-8")
    await take(retrieval, tmp_path, "asked")
    answer = await ask(service, retrieval, "asked", "How far is the moon?")
    assert (answer.outcome, answer.text, answer.removed) == ("answered", "It is far [1]. It is round.", 1)
    [citation] = answer.citations
    assert citation.passage.text == GUIDE[citation.passage.start : citation.passage.end]
    assert citation.passage == answer.passages[0].passage
    assert answer.prompt == "answer-with-sources@1"
    assert answer.to_json()["citations"][0]["number"] == 1
    told = await ask(service, retrieval, "asked", "月亮多远？")
    assert (told.outcome, told.text) == ("not-in-documents", "文档中没有说明。")


async def test_no_model_is_asked_where_nothing_is_close(service: Service, retrieval: Retrieval, tmp_path: Path) -> None:
    (tmp_path / "guide.md").write_text(GUIDE, encoding="utf-8")
    await take(retrieval, tmp_path, "far")
    answer = await ask(service, retrieval, "far", "How far is the moon?", floor=0.999)
    assert (answer.outcome, answer.model, answer.text) == ("nothing-close", None, "The documents do not say.")
    await retrieval.book.ensure("blue", "nothing", PLAN)
    assert (await ask(service, retrieval, "nothing", "月亮？")).text == "文档中没有说明。"


@pytest.mark.parametrize(
    ("text", "checked", "numbers", "removed"),
    [
        ("A [1]. B [2].", "A [1]. B [2].", (1, 2), 0),
        ("A [1, 2] and [3].", "A [1][2] and.", (1, 2), 1),
        ("甲【2】，乙［7］。", "甲[2]，乙。", (2,), 1),
        ("A [0] [x] [2024] a[1]", "A [x] a[1]", (1,), 2),
        ("nothing", "nothing", (), 0),
    ],
)
async def test_citations_that_do_not_exist_are_removed_and_counted(
    text: str, checked: str, numbers: tuple[int, ...], removed: int
) -> None:
    assert check_citations(text, 2) == (checked, numbers, removed)
