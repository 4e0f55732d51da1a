"""``/api/v1/rag`` over scripted models: documents sent, narrowed, limited to keys, searched, asked and streamed."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio

from pagoda.core.settings import Settings
from tests.rings import Ring, limited
from tests.services import Service, fake_model, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = (
    fake_model(rules=[{"contains": "far", "text": "It is far [1]. It is round [9]."}], text="no rule"),
    fake_model("fake-embed", task="embedding"),
)
GUIDE = "# Guide\n\nKeys open doors.\n\n## Moon\n\nThe moon is far away. 月亮很远。\n"
ROOT = "/api/v1/rag/collections"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(module_settings: Settings) -> AsyncIterator[Service]:
    async with running(module_settings, MODELS) as started:
        yield started


async def call(service: Service, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    form = isinstance(body, aiohttp.FormData)
    given: dict[str, Any] = {"data": body} if form else {"json": body}
    async with service.session.request(method, service.url + path, headers=headers, **given) as response:
        return response.status, await response.json()


def files(*named: tuple[str, bytes], **fields: str) -> aiohttp.FormData:
    form = aiohttp.FormData(quote_fields=False)
    for name, data in named:
        form.add_field("file", data, filename=name, content_type="application/octet-stream")
    for name, value in fields.items():
        form.add_field(name, value)
    return form


async def made(service: Service, name: str, key: str = "") -> str:
    assert (await call(service, "PUT", f"{ROOT}/{name}", {"limit": 80, "overlap": 10}, key))[0] == 200
    return f"{ROOT}/{name}/documents"


async def test_documents_are_sent_read_labelled_and_deleted(service: Service) -> None:
    path = await made(service, "guide")
    status, report = await call(
        service,
        "POST",
        path,
        files(("guide.md", GUIDE.encode()), ("空.txt", b""), ("../x.txt", b"x"), labels='{"a": "1"}'),
    )
    assert status == 200
    assert (report["added"], [each["source"] for each in report["failed"]]) == (["guide.md"], ["空.txt", "../x.txt"])
    _, again = await call(service, "POST", path, files(("guide.md", GUIDE.encode())))
    assert (again["unchanged"], again["chunks"]) == (1, 0)
    _, listed = await call(service, "GET", path)
    [row] = listed["data"]
    assert (row["title"], row["labels"], row["keys"]) == ("Guide", {"a": "1"}, None)
    one = f"{path}/{row['id']}"
    assert (await call(service, "GET", one))[1]["text"] == GUIDE
    _, part = await call(service, "GET", f"{one}?start=2&end=7")
    assert (part["text"], part["start"], part["end"], part["length"]) == ("Guide", 2, 7, len(GUIDE))
    assert (await call(service, "GET", f"{one}?start=9999"))[1]["text"] == ""
    assert (await call(service, "PATCH", one, {"labels": {"b": "2"}}))[1]["labels"] == {"b": "2"}
    _, collections = await call(service, "GET", ROOT)
    [told] = [each for each in collections["data"] if each["name"] == "guide"]
    assert (told["documents"], told["chunks"], told["model"], told["limit"]) == (1, report["chunks"], "fake-embed", 80)
    assert (await call(service, "DELETE", one)) == (200, {"collection": "guide", "documents": 1})
    status, gone = await call(service, "GET", one)
    assert (status, "may have been deleted" in gone["error"]["message"]) == (404, True)
    assert (await call(service, "DELETE", f"{ROOT}/guide"))[0] == 200
    assert (await call(service, "GET", path))[0] == 404


async def test_a_collection_keeps_its_plan(service: Service) -> None:
    await made(service, "kept")
    assert (await call(service, "PUT", f"{ROOT}/kept", {"limit": 90, "overlap": 10}))[0] == 409
    assert (await call(service, "PUT", f"{ROOT}/Not a name", {}))[0] == 400
    assert (await call(service, "PUT", f"{ROOT}/other", {"model": "nobody"}))[0] == 404
    assert (await call(service, "PUT", f"{ROOT}/other", {"limit": 10, "overlap": 9}))[0] == 400


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"labels": "no JSON"}, "labels"),
        ({"labels": '{"a": 1}'}, "labels"),
        ({"labels": '{"source": "x"}'}, "labels"),
        ({"keys": '"one"'}, "labels"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_what_a_form_says_is_checked(service: Service, fields: dict[str, str], param: str) -> None:
    path = await made(service, "forms")
    status, said = await call(service, "POST", path, files(("a.txt", b"a"), **fields))
    assert (status, said["error"]["param"]) == (400, param)
    assert (await call(service, "GET", path))[1]["data"] == []


async def test_searches_and_answers_point_to_exact_characters(service: Service) -> None:
    path = await made(service, "asked")
    await call(service, "POST", path, files(("guide.md", GUIDE.encode())))
    wanted = {"collection": "asked", "where": {"kind": "markdown"}, "diversity": 0.3, "reranker": "fake-embed"}
    status, found = await call(service, "POST", "/api/v1/rag/search", {**wanted, "query": "moon"})
    assert (status, len(found["data"]) > 0) == (200, True)
    _, answer = await call(service, "POST", "/api/v1/rag/ask", {**wanted, "question": "How far is it?", "floor": -1})
    assert (answer["outcome"], answer["answer"], answer["citations_removed"]) == (
        "answered",
        "It is far [1]. It is round.",
        1,
    )
    for each in (*found["data"], *answer["citations"], *answer["passages"]):
        assert each["text"] == GUIDE[each["start"] : each["end"]]
    bare = {"collection": "asked", "question": "far?", "floor": -1, "return_source_documents": False}
    assert "passages" not in (await call(service, "POST", "/api/v1/rag/ask", bare))[1]


async def test_an_answer_streams_with_its_citations_checked(service: Service) -> None:
    path = await made(service, "streamed")
    await call(service, "POST", path, files(("guide.md", GUIDE.encode())))
    body = {"collection": "streamed", "question": "How far is it?", "floor": -1}
    frames = await service.stream("/api/v1/rag/ask", body)
    sources, *pieces, answer = frames
    assert [frame["type"] for frame in (sources, answer)] == ["sources", "answer"]
    assert len(pieces) > 1
    assert "".join(frame["text"] for frame in pieces) == answer["answer"] == "It is far [1]. It is round."
    assert answer["citations"][0]["document"] == sources["passages"][0]["document"]
    closed = {**body, "floor": 1}
    assert [frame["type"] for frame in await service.stream("/api/v1/rag/ask", closed)] == [
        "sources",
        "piece",
        "answer",
    ]
    bare = await service.stream("/api/v1/rag/ask", {**body, "return_source_documents": False})
    assert not any("passages" in frame for frame in bare)
    assert bare[-1]["answer"] == answer["answer"]
    async with service.session.post(
        service.url + "/api/v1/rag/ask", json={**body, "collection": "nowhere", "stream": True}
    ) as response:
        assert response.status == 404, "what is wrong before the first frame is a plain error"


async def test_sentences_are_quoted_for_a_key_that_may_ask_no_chat_model(module_settings: Settings) -> None:
    home = dataclasses.replace(module_settings, home=module_settings.home / "wordless")
    key = dataclasses.replace(
        limited("embeds", "blue"), scopes=frozenset({"inference", "operate"}), models=("fake-embed",)
    )
    async with running(home, MODELS, keys=Ring(key)) as service:
        path = await made(service, "quoted", "pk-embeds")
        await call(service, "POST", path, files(("guide.md", GUIDE.encode())), "pk-embeds")
        body = {"collection": "quoted", "question": "How far is the moon?", "floor": -1}
        status, answer = await call(service, "POST", "/api/v1/rag/ask", {**body, "method": "quote"}, "pk-embeds")
        assert (status, answer["outcome"], answer["model"]) == (200, "answered", None)
        assert (await call(service, "POST", "/api/v1/rag/ask", body, "pk-embeds"))[0] == 404
        history = {"method": "quote", "history": [{"role": "user", "content": "What is far?"}]}
        assert (await call(service, "POST", "/api/v1/rag/ask", {**body, **history}, "pk-embeds"))[0] == 404


async def test_a_request_counts_once_and_a_limit_is_told_as_one(module_settings: Settings) -> None:
    keys = [
        dataclasses.replace(limited(name, "blue", requests_per_minute=3), scopes=frozenset({"inference", "operate"}))
        for name in ("asker", "sender")
    ]
    home = dataclasses.replace(module_settings, home=module_settings.home / "limits")
    async with running(home, MODELS, keys=Ring(*keys)) as service:
        path = await made(service, "counted", "pk-asker")
        many = files(("a.txt", b"far away. " * 800), ("b.txt", b"far"))
        assert len((await call(service, "POST", path, many, "pk-asker"))[1]["added"]) == 2
        body = {"collection": "counted", "question": "How far?", "floor": -1, "reranker": "fake-embed"}
        asked = [await call(service, "POST", "/api/v1/rag/ask", body, "pk-asker") for _ in range(3)]
        assert [status for status, _ in asked] == [200, 200, 429]
        for number in range(4):
            status, told = await call(
                service, "POST", path, files((f"{number}.txt", f"new {number}".encode())), "pk-sender"
            )
            assert status == (200 if number < 3 else 429), told
        assert told["error"]["code"] == "rate_limit_exceeded"


async def test_teams_and_keys_see_what_is_theirs(module_settings: Settings) -> None:
    named = (("ours", "blue"), ("theirs", "blue"), ("red", "red"))
    keys = [dataclasses.replace(limited(*each), scopes=frozenset({"inference", "operate"})) for each in named]
    keys.append(limited("reader", "blue"))
    home = dataclasses.replace(module_settings, home=module_settings.home / "keys")
    async with running(home, MODELS, keys=Ring(*keys)) as service:
        path = await made(service, "secrets", "pk-ours")
        limit = orjson.dumps(["ours"]).decode()
        await call(service, "POST", path, files(("pay.txt", b"pay far"), keys=limit), "pk-ours")
        await call(service, "POST", path, files(("menu.txt", b"menu far")), "pk-ours")
        for key, sources in (("pk-ours", ["menu.txt", "pay.txt"]), ("pk-theirs", ["menu.txt"])):
            _, listed = await call(service, "GET", path, key=key)
            assert [row["source"] for row in listed["data"]] == sources
            body = {"collection": "secrets", "query": "far", "question": "How far?", "floor": -1}
            search = {name: body[name] for name in ("collection", "query")}
            _, found = await call(service, "POST", "/api/v1/rag/search", search, key)
            assert sorted(each["source"] for each in found["data"]) == sources
            del body["query"]
            _, answer = await call(service, "POST", "/api/v1/rag/ask", body, key)
            assert sorted(each["source"] for each in answer["passages"]) == sources
        _, mine = await call(service, "GET", path, key="pk-ours")
        hidden = next(row["id"] for row in mine["data"] if row["source"] == "pay.txt")
        for method in ("GET", "PATCH", "DELETE"):
            assert (await call(service, method, f"{path}/{hidden}", {}, "pk-theirs"))[0] == 404
        _, report = await call(service, "POST", path, files(("pay.txt", b"mine")), "pk-theirs")
        assert len(report["failed"]) == 1
        assert (await call(service, "GET", path, key="pk-red"))[0] == 404
        assert (await call(service, "POST", path, files(("a.txt", b"a")), "pk-reader"))[0] == 403
        assert (await call(service, "GET", path, key="pk-reader"))[0] == 200
