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
from pagoda.core.errors import Conflict, ContextTooLong, Forbidden, InvalidRequest, LimitExceeded, ModelError, NotFound
from pagoda.core.settings import Settings
from pagoda.core.types import Call, Embed, Embeddings, Event, Generation, Rerank, Started, Tokenize, Tokens
from pagoda.logic.prompts.prompt import SelfConsistency
from pagoda.logic.retrieval.answering import Piece, Said, SourcedAnswer, Sources
from pagoda.logic.retrieval.collection import Plan, Tags
from pagoda.logic.retrieval.ingestion import Report
from pagoda.logic.retrieval.question import Method, Question, Refinement
from tests.services import Service, fake_model, running

PLAN = Plan(model="fake-embed", limit=80, overlap=10)
RULES = [
    {"contains": "Last question: And its colour?", "text": "What colour has the moon?"},
    {"contains": "Last question: silent", "text": ""},
    {"contains": "Partial answers:", "text": "Combined [1][3]."},
    {"contains": "What is not said?", "text": "It is grey [1]. The documents do not say more."},
    {"contains": "Nothing at all?", "text": "Sorry, the documents do not say."},
    {"contains": "Answer so far:", "text": "Refined [2]."},
    {"contains": "many parts", "text": "Part [1]."},
    {"contains": "many rounds", "text": "A long part " * 22 + "[1]."},
    {"contains": "What colour has the moon?", "text": "Grey [1]."},
    {"contains": "月亮", "text": "文档中没有说明。"},
    {"contains": "Which keys open nothing?", "text": "A revoked key opens nothing. The lock is blue."},
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
        answerer = await retrieval.answerer(room.index, CALL)
        return await answerer.answer(Question(text=text, collection=name, floor=floor), CALL)


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

    def __init__(self, service: Service, left: int, error: Exception) -> None:
        self._door, self._left, self._error = service.platform.inference, left, error

    async def embed(self, request: Embed, call: Call) -> Embeddings:
        self._left -= 1
        if self._left < 0:
            raise self._error
        return await self._door.embed(request, call)


@pytest.mark.parametrize("error", [ModelError("broken"), LimitExceeded("All is used up.", retry_after=60)])
async def test_work_that_broke_off_goes_on_where_it_was(service: Service, tmp_path: Path, error: Exception) -> None:
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text(f"number {number}", encoding="utf-8")
    platform = service.platform
    door: Any = Breaking(service, 2, error)
    broken = Retrieval(platform.settings, platform.records, lambda: door)
    name = f"resumed-{type(error).__name__.lower()}"
    with pytest.raises(type(error)):
        await take(broken, tmp_path, name)
    whole = Retrieval(platform.settings, platform.records, lambda: platform.inference)
    report = await take(whole, tmp_path, name)
    assert (report.unchanged, len(report.added)) == (2, 2)
    assert len(await whole.searcher.search(name, "number", CALL, mode="lexical")) == 4


class Heard:
    """A door that keeps what it was asked, and under which call."""

    def __init__(self, service: Service) -> None:
        self._door, self.asked = service.platform.inference, list[tuple[Any, Call]]()

    async def embed(self, request: Embed, call: Call) -> Embeddings:
        self.asked.append((request, call))
        return await self._door.embed(request, call)

    async def rerank(self, request: Rerank, call: Call) -> Any:
        self.asked.append((request, call))
        return await self._door.rerank(request, call)

    async def tokenize(self, request: Tokenize, call: Call) -> Tokens:
        self.asked.append((request, call))
        return await self._door.tokenize(request, call)

    def complete(self, request: Generation, call: Call) -> AsyncIterator[Event]:
        self.asked.append((request, call))
        return self._door.complete(request, call)

    def of(self, kind: type) -> list[Any]:
        return [request for request, _ in self.asked if isinstance(request, kind)]


def overheard(service: Service) -> tuple[Heard, Retrieval]:
    door: Any = Heard(service)
    return door, Retrieval(service.platform.settings, service.platform.records, lambda: door)


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


async def test_a_model_that_cites_nothing_gives_an_answer_with_sources(
    service: Service, retrieval: Retrieval, tmp_path: Path
) -> None:
    (tmp_path / "guide.md").write_text(GUIDE, encoding="utf-8")
    await take(retrieval, tmp_path, "silent")
    answer = await ask(service, retrieval, "silent", "Which keys open nothing?")
    [citation] = answer.citations
    assert answer.text == f"A revoked key opens nothing. [{citation.number}] The lock is blue."
    assert "A revoked key opens nothing" in citation.passage.text
    assert (answer.added, answer.to_json()["citations_added"]) == (1, 1)


async def test_no_model_is_asked_where_nothing_is_close(service: Service, retrieval: Retrieval, tmp_path: Path) -> None:
    (tmp_path / "guide.md").write_text(GUIDE, encoding="utf-8")
    await take(retrieval, tmp_path, "far")
    answer = await ask(service, retrieval, "far", "How far is the moon?", floor=0.999)
    assert (answer.outcome, answer.model, answer.text) == ("nothing-close", None, "The documents do not say.")
    await retrieval.book.ensure("blue", "nothing", PLAN)
    assert (await ask(service, retrieval, "nothing", "月亮？")).text == "文档中没有说明。"


async def test_a_search_can_be_narrowed(retrieval: Retrieval, tmp_path: Path) -> None:
    collection = await retrieval.book.ensure("blue", "narrowed", PLAN)
    for year in ("2023", "2024"):
        tags = Tags(labels={"year": year, "area": "law"})
        await retrieval.ingestion.take_upload(collection, f"{year}.txt", f"rules of {year}".encode(), CALL, tags)
    await retrieval.ingestion.take_upload(collection, "a/plain.md", b"# Rules\n\nrules", CALL)

    async def found(**where: tuple[str, ...]) -> list[str]:
        hits = await retrieval.searcher.search("narrowed", "rules", CALL, refinement=Refinement(where=where))
        return sorted(hit.passage.source for hit in hits)

    assert await found() == ["2023.txt", "2024.txt", "a/plain.md"]
    assert await found(year=("2024",)) == ["2024.txt"]
    assert await found(year=("2023", "2024"), area=("law",)) == ["2023.txt", "2024.txt"]
    assert await found(kind=("markdown",)) == ["a/plain.md"]
    assert await found(source=("2023.txt",), year=("2024",)) == []
    for labels in ({"source": "x"}, {"a b": "x"}, {"a": "x" * 501}):
        with pytest.raises(InvalidRequest, match="cannot be a label"):
            Tags(labels=labels)


async def test_a_document_can_be_limited_to_some_keys(retrieval: Retrieval) -> None:
    collection = await retrieval.book.ensure("blue", "limited", PLAN)
    ours, theirs = (replace(CALL, key_id=key) for key in ("key_ours", "key_theirs"))
    await retrieval.ingestion.take_upload(collection, "salaries.txt", b"salaries", CALL, Tags(keys=("key_ours",)))
    await retrieval.ingestion.take_upload(collection, "menu.txt", b"salads", CALL)
    book = retrieval.book
    for call, sources in (
        (ours, ["menu.txt", "salaries.txt"]),
        (theirs, ["menu.txt"]),
        (CALL, ["menu.txt", "salaries.txt"]),
    ):
        assert [row.source for row in await book.documents(collection, call.key_id)] == sources
        hits = await retrieval.searcher.search("limited", "salaries salads", call, mode="lexical")
        assert sorted(hit.passage.source for hit in hits) == sources
    hidden = next(row for row in await book.documents(collection) if row.source == "salaries.txt")
    assert await book.text(collection, hidden.id, "key_ours") == "salaries"
    with pytest.raises(NotFound):
        await book.text(collection, hidden.id, "key_theirs")
    with pytest.raises(Forbidden):
        await retrieval.ingestion.take_upload(collection, "salaries.txt", b"mine now", theirs)
    await book.tag(collection, "salaries.txt", Tags())
    assert await retrieval.searcher.search("limited", "salaries", theirs, mode="lexical")


async def test_labels_stay_until_others_are_given(retrieval: Retrieval) -> None:
    collection = await retrieval.book.ensure("blue", "labelled", PLAN)
    first = Tags(labels={"a": "1"})
    for data, tags, said, embedded in (
        (b"one", first, first, 1),
        (b"two", None, first, 1),
        (b"two", Tags(), Tags(), 0),
    ):
        report = await retrieval.ingestion.take_upload(collection, "x.txt", data, CALL, tags)
        [row] = await retrieval.book.documents(collection)
        assert (row.tags, report.chunks) == (said, embedded)


async def test_a_renamed_file_is_not_embedded_again(retrieval: Retrieval, tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("apples", encoding="utf-8")
    (tmp_path / "other.txt").write_text("pears", encoding="utf-8")
    await take(retrieval, tmp_path, "renamed")
    before = await retrieval.book.documents(await retrieval.book.get("blue", "renamed"))
    (tmp_path / "old.txt").rename(tmp_path / "new.txt")
    (tmp_path / "copy.txt").write_text("pears", encoding="utf-8")
    report = await take(retrieval, tmp_path, "renamed")
    assert report.renamed == [(str(tmp_path / "old.txt"), str(tmp_path / "new.txt"))]
    assert (report.chunks, report.removed, report.added) == (1, [], [str(tmp_path / "copy.txt")]), (
        "a copy is no renaming"
    )
    after = await retrieval.book.documents(await retrieval.book.get("blue", "renamed"))
    assert {row.id for row in before} < {row.id for row in after}
    [hit] = await retrieval.searcher.search("renamed", "apples", CALL, mode="lexical")
    assert (hit.passage.source, hit.passage.title) == (str(tmp_path / "new.txt"), "new.txt")


@pytest.mark.parametrize(
    "name", ["../up.txt", "/etc/passwd", "a/../../b", "", ".", "x" * 501, "a\nb.txt", "..\\up.txt"]
)
async def test_a_name_that_leads_elsewhere_is_refused(retrieval: Retrieval, name: str) -> None:
    collection = await retrieval.book.ensure("blue", "uploads", PLAN)
    with pytest.raises(InvalidRequest, match="no name for a document"):
        await retrieval.ingestion.take_upload(collection, name, b"text", CALL)


async def answered(retrieval: Retrieval, service: Service, question: Question) -> list[Said]:
    async with open_prompts(service.platform.settings) as room:
        answerer = await retrieval.answerer(room.index, CALL)
        return [each async for each in answerer.stream(question, CALL)]


async def test_an_answer_can_be_quoted_without_a_model(service: Service, retrieval: Retrieval, tmp_path: Path) -> None:
    text = "Keys open doors. A revoked key opens nothing; the moon is far away. Doors are heavy. 门很重。"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    await take(retrieval, tmp_path, "quoted")
    door, heard = overheard(service)
    question = Question(text="revoked key", collection="quoted", floor=-1, method="quote")
    answer = (await answered(heard, service, question))[-1]
    assert isinstance(answer, SourcedAnswer)
    assert (answer.outcome, answer.model, answer.removed) == ("answered", None, 0)
    assert 1 <= len(answer.citations) <= 3
    for citation in answer.citations:
        assert citation.passage.text == text[citation.passage.start : citation.passage.end]
        assert f"{citation.passage.text} [{citation.number}]" in answer.text
    assert "A revoked key opens nothing; the moon is far away. [" in answer.text
    assert [type(request) for request, _ in door.asked] == [Embed, Embed]
    assert [request.kind for request in door.of(Embed)] == ["query", "passage"], "the question is embedded once"


async def test_brackets_in_a_quoted_sentence_cite_nothing(
    service: Service, retrieval: Retrieval, tmp_path: Path
) -> None:
    text = "A revoked key [2] opens nothing [1-3]; doors are heavy【12】."
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    await take(retrieval, tmp_path, "bracketed")
    question = Question(text="revoked key doors", collection="bracketed", floor=-1, method="quote")
    answer = (await answered(retrieval, service, question))[-1]
    assert isinstance(answer, SourcedAnswer)
    assert answer.text == "A revoked key (2) opens nothing (1-3); doors are heavy(12). [1]"
    [citation] = answer.citations
    assert citation.passage.text == text, "the passage itself stays as it is"


async def test_what_has_no_sentence_cannot_be_quoted(service: Service, retrieval: Retrieval, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("*** --- ***", encoding="utf-8")
    await take(retrieval, tmp_path, "wordless")
    question = Question(text="月亮？", collection="wordless", floor=-1, method="quote")
    answer = (await answered(retrieval, service, question))[-1]
    assert isinstance(answer, SourcedAnswer)
    assert (answer.outcome, answer.text, answer.citations) == ("not-in-documents", "文档中没有说明。", ())


async def test_a_long_question_is_quoted_for_by_its_end(service: Service, retrieval: Retrieval, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(GUIDE, encoding="utf-8")
    await take(retrieval, tmp_path, "long")
    door, heard = overheard(service)
    question = Question(text="words " * 600 + "revoked key?", collection="long", floor=-1, method="quote")
    answer = (await answered(heard, service, question))[-1]
    assert isinstance(answer, SourcedAnswer)
    assert answer.outcome == "answered"
    assert max(len(text) for request in door.of(Embed) for text in request.inputs) == 1000


async def test_all_calls_for_an_answer_are_one_request(service: Service, retrieval: Retrieval, tmp_path: Path) -> None:
    (tmp_path / "guide.md").write_text(GUIDE * 8, encoding="utf-8")
    await take(retrieval, tmp_path, "counted")
    turns = ({"role": "user", "content": "How far is the moon?"}, {"role": "assistant", "content": "Far [1]."})
    reranked = Refinement(reranker="fake-embed")
    asked: tuple[tuple[Method, Any], ...] = (("quote", ()), ("auto", ()), ("map-reduce", turns), ("quote", turns))
    for method, history in asked:
        door, heard = overheard(service)
        question = Question(
            text="moon", collection="counted", floor=-1, method=method, history=history, refinement=reranked
        )
        await answered(heard, service, question)
        parents = [call.parent for _, call in door.asked]
        assert (parents.count(None), parents.count(CALL.request_id)) == (1, len(parents) - 1), (method, history)
        assert len(parents) > 2
    door, heard = overheard(service)
    await heard.searcher.search("counted", "moon", CALL, refinement=reranked)
    assert [call.parent for _, call in door.asked] == [None, CALL.request_id]
    door, heard = overheard(service)
    collection = await heard.book.get("blue", "counted")
    await heard.ingestion.take_upload(collection, "long.md", (GUIDE * 60).encode(), CALL)
    assert [call.parent is None for _, call in door.asked] == [True] + [False] * (len(door.asked) - 1)
    assert len(door.asked) > 2


async def test_an_answer_is_credited_to_who_gave_it_as_its_prompt_wants(
    service: Service, retrieval: Retrieval, tmp_path: Path
) -> None:
    (tmp_path / "guide.md").write_text(GUIDE, encoding="utf-8")
    await take(retrieval, tmp_path, "credited")
    door: Any = Elsewhere(service)
    heard = Retrieval(service.platform.settings, service.platform.records, lambda: door)
    question = Question(text="How far is the moon?", collection="credited", floor=-1)
    async with open_prompts(service.platform.settings) as room:
        answerer = await heard.answerer(room.index, CALL)
        assert (await answerer.answer(question, CALL)).model == "another"
        version = answerer._wording.answer
        techniques = replace(version.prompt.techniques, self_consistency=SelfConsistency(samples=3, temperature=0.7))
        voted = replace(version, prompt=replace(version.prompt, techniques=techniques))
        answerer._wording = replace(answerer._wording, answer=voted)
        answer = await answerer.answer(question, CALL)
        bare = tuple(each for each in version.prompt.variables if each.name != "unknown")
        own = replace(version, prompt=replace(version.prompt, variables=bare))
        answerer._wording = replace(answerer._wording, answer=own)
        assert (await answerer.answer(question, CALL)).outcome == "answered", (
            "a team's own prompt needs no such variable"
        )
    assert (answer.text, answer.model, answer.removed) == ("It is far [1]. It is round.", "another", 1)
    assert [(request.n, request.sampling.temperature) for request in door.of(Generation)] == [(1, 0), (3, 0.7), (1, 0)]


@pytest.mark.parametrize(
    ("text", "outcome"), [("What is not said?", "answered"), ("Nothing at all?", "not-in-documents")]
)
async def test_an_answer_that_cites_is_one(
    service: Service, retrieval: Retrieval, tmp_path: Path, text: str, outcome: str
) -> None:
    (tmp_path / "guide.md").write_text(GUIDE, encoding="utf-8")
    await take(retrieval, tmp_path, "partly")
    assert (await ask(service, retrieval, "partly", text)).outcome == outcome


async def test_one_document_is_looked_up_alone(retrieval: Retrieval) -> None:
    collection = await retrieval.book.ensure("blue", "single", PLAN)
    tags = Tags(keys=("key_ours",))
    await retrieval.ingestion.take_upload(collection, "a.txt", b"apples", CALL, tags)
    await retrieval.ingestion.take_upload(collection, "b.txt", b"bananas", CALL)
    other = await retrieval.book.ensure("blue", "single-other", PLAN)
    rows = {row.source: row for row in await retrieval.book.documents(collection)}
    assert await retrieval.book.document(collection, rows["a.txt"].id, "key_ours") == rows["a.txt"]
    assert await retrieval.book.of_source(collection, "b.txt") == rows["b.txt"]
    assert await retrieval.book.of_source(other, "b.txt") is None
    for where, key in ((collection, "key_theirs"), (other, None)):
        with pytest.raises(NotFound, match="may have been deleted"):
            await retrieval.book.document(where, rows["a.txt"].id, key)


async def test_a_follow_up_question_is_rewritten(service: Service, retrieval: Retrieval, tmp_path: Path) -> None:
    (tmp_path / "guide.md").write_text(GUIDE, encoding="utf-8")
    await take(retrieval, tmp_path, "followed")
    history = ({"role": "user", "content": "How far is the moon?"}, {"role": "assistant", "content": "Far [1]."})
    question = Question(text="And its colour?", collection="followed", floor=-1, history=history)
    sources, *pieces, answer = await answered(retrieval, service, question)
    assert isinstance(sources, Sources)
    assert isinstance(answer, SourcedAnswer)
    assert sources.query == answer.query == "What colour has the moon?"
    assert answer.text == "".join(piece.text for piece in pieces if isinstance(piece, Piece)) == "Grey [1]."
    silent = replace(question, text="silent")
    assert (await answered(retrieval, service, silent))[0].query == "silent", "as it is, where nothing came of it"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("method", "text", "asked", "shown"),
    [("stuff", "Part [1].", 1, 2), ("refine", "Refined [2].", 3, 5), ("map-reduce", "Combined [1][3].", 4, 5)],
)
async def test_passages_that_do_not_fit_are_shown_part_by_part(
    service: Service, tmp_path: Path, method: Method, text: str, asked: int, shown: int
) -> None:
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text(f"{number} many parts " + "word " * 12, encoding="utf-8")
    platform = service.platform
    door: Any = Narrow(service, characters=580)
    retrieval = Retrieval(platform.settings, platform.records, lambda: door)
    await take(retrieval, tmp_path, f"parts-{method}")
    question = Question(text="many parts?", collection=f"parts-{method}", floor=-1, method=method)
    answer = (await answered(retrieval, service, question))[-1]
    assert isinstance(answer, SourcedAnswer)
    assert (answer.text, len(answer.passages)) == (text, shown)
    assert door.asked == asked


async def combined(service: Service, folder: Path, characters: int) -> tuple[Any, int]:
    """An answer from 20 passages that are shown part by part, each with a long answer; how often models were asked."""
    for number in range(20):
        (folder / f"{number}.txt").write_text(f"{number} many rounds " + "word " * 11, encoding="utf-8")
    door: Any = Narrow(service, characters)
    retrieval = Retrieval(service.platform.settings, service.platform.records, lambda: door)
    name = f"rounds-{characters}"
    await take(retrieval, folder, name)
    question = Question(text="many rounds?", collection=name, floor=-1, method="map-reduce", limit=20)
    return (await answered(retrieval, service, question))[-1], door.asked


async def test_answers_that_do_not_fit_are_combined_in_rounds(service: Service, tmp_path: Path) -> None:
    answer, asked = await combined(service, tmp_path, 900)
    assert (answer.text, len(answer.passages)) == ("Combined [1][3].", 20)
    parts, pairs = 3, 1  # the third answer goes on as it is
    assert asked == parts + pairs + 1


async def test_answers_of_which_no_two_fit_are_told_as_too_long(service: Service, tmp_path: Path) -> None:
    with pytest.raises(ContextTooLong):
        await combined(service, tmp_path, 620)


class Elsewhere(Heard):
    """A door behind which another model answers."""

    async def complete(self, request: Generation, call: Call) -> AsyncIterator[Event]:
        self.asked.append((request, call))
        async for event in self._door.complete(request, call):
            yield replace(event, model="another") if isinstance(event, Started) else event


class Narrow:
    """A door to a model whose context holds so many characters; the stand-in for an answer to refine weighs nothing."""

    def __init__(self, service: Service, characters: int) -> None:
        self._door, self._characters, self.asked = service.platform.inference, characters, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._door, name)

    async def tokenize(self, request: Tokenize, call: Call) -> Tokens:
        length = sum(len(str(message["content"]).replace("answer ", "")) for message in request.messages or ())
        return Tokens(model=request.model, ids=tuple(range(length)), context=self._characters + 256)

    def complete(self, request: Generation, call: Call) -> AsyncIterator[Event]:
        self.asked += 1
        return self._door.complete(request, call)
