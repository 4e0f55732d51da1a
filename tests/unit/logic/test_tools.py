"""Tools: schemas from functions, bounds of the calculator, units, dates, search, the fence around Python, HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import pytest_asyncio
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from pagoda.core.errors import InvalidRequest, NotFound, ToolError
from pagoda.core.settings import Tools
from pagoda.logic.tools import clock, sandbox, units
from pagoda.logic.tools.calculator import calculate
from pagoda.logic.tools.fetching import Web, is_public
from pagoda.logic.tools.function import tool_from
from pagoda.logic.tools.openapi import read_operations
from pagoda.logic.tools.performing import perform
from pagoda.logic.tools.searching import Collection, Passage, SearxSearch, read_collection
from pagoda.logic.tools.shelf import Toolshelf, built_in, open_toolshelf
from pagoda.logic.tools.tool import Occasion, Tool

NOWHERE = Occasion()


# -- functions --------------------------------------------------------------------------------------------------------


def book(city: str, nights: Annotated[int, Field(ge=1)] = 1, room: Literal["single", "double"] = "single") -> str:
    """Book a room
    in a hotel.

    Args:
        city: Where the hotel is,
            in full.
        nights (int): How long.

    Returns:
        A number.
    """
    return f"{city}/{nights}/{room}"


def 订房(城市: str) -> str:  # noqa: N802, N803, PLC2401
    """预订房间。

    参数：
        城市：酒店所在的城市
    """
    return 城市


async def test_a_schema_comes_from_signature_and_docstring() -> None:
    tool = tool_from(book)
    assert tool.name == "book"
    assert tool.description == "Book a room in a hotel."
    properties = tool.parameters["properties"]
    assert properties["city"] == {"type": "string", "description": "Where the hotel is, in full."}
    assert properties["nights"] == {"type": "integer", "minimum": 1, "default": 1, "description": "How long."}
    assert properties["room"]["enum"] == ["single", "double"]
    assert tool.parameters["required"] == ["city"]
    assert (await perform(tool, {"city": "Oslo", "nights": 2}, NOWHERE)).result == "Oslo/2/single"


async def test_a_chinese_docstring_is_read_as_well() -> None:
    tool = tool_from(订房)
    assert tool.parameters["properties"]["城市"]["description"] == "酒店所在的城市"
    assert (await perform(tool, {"城市": "奥斯陆"}, NOWHERE)).result == "奥斯陆"


async def test_the_occasion_is_given_and_is_no_argument() -> None:
    async def send(to: str, occasion: Occasion) -> str:
        """Send."""
        return f"{to} {occasion.key}"

    tool = tool_from(send)
    assert list(tool.parameters["properties"]) == ["to"]
    assert (await perform(tool, {"to": "a"}, Occasion(key="k"))).result == "a k"


@pytest.mark.parametrize("arguments", [{}, {"city": 5}, {"city": "x", "nights": 0}, {"city": "x", "more": 1}, [], None])
async def test_arguments_are_checked_before_anything_happens(arguments: Any) -> None:
    assert "arguments of book are wrong" in str((await perform(tool_from(book), arguments, NOWHERE)).error)


def test_a_parameter_without_type_is_refused() -> None:
    def loose(what):  # type: ignore[no-untyped-def]
        return what

    with pytest.raises(InvalidRequest, match="needs a type"):
        tool_from(loose)


# -- calls ------------------------------------------------------------------------------------------------------------


async def test_a_tool_that_hangs_raises_or_says_too_much_ends_in_an_outcome() -> None:
    async def hang() -> str:
        """Hang."""
        await asyncio.sleep(60)
        return ""

    def fail() -> str:
        """Fail."""
        raise KeyError("gone")

    async def talk() -> str:
        """Talk."""
        return "x" * 1_000_000

    assert "did not answer within" in str((await perform(tool_from(hang, seconds=0.05), {}, NOWHERE)).error)
    assert "KeyError" in str((await perform(tool_from(fail), {}, NOWHERE)).error)
    outcome = await perform(tool_from(talk, characters=100), {}, NOWHERE)
    assert outcome.cut
    assert outcome.text().endswith("[999900 characters more were cut]")


async def test_only_harmless_calls_are_repeated() -> None:
    tries: list[str] = []

    async def shaky() -> str:
        """Fail at first."""
        tries.append("x")
        if len(tries) % 2:
            raise ToolError("not now", retryable=True)
        return "done"

    assert (await perform(tool_from(shaky, read_only=True, attempts=2), {}, NOWHERE)).result == "done"
    tries.clear()
    assert (await perform(tool_from(shaky, attempts=2), {}, NOWHERE)).error == "not now"
    assert len(tries) == 1


async def test_results_are_checked() -> None:
    async def count() -> Any:
        """Count."""
        return "many"

    tool = tool_from(count, returns={"type": "integer"})
    assert "breaks its schema" in str((await perform(tool, {}, NOWHERE)).error)


# -- what comes with Pagoda -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("37*41-2015", "-498"),
        ("0.1+0.2", "0.3"),
        ("2**100", str(2**100)),
        ("1/3", "0.333333333333333"),
        ("sqrt(16)", "4"),
        ("（３＋４）×２＝", "14"),
        ("-7//2", "-4"),
        ("round(2.675, 2)", "2.68"),
        ("sin(pi/2)", "1"),
        ("sum(1, 2, 3)", "6"),
        ("lcm(4, 6)", "12"),
        ("10**-3", "0.001"),
    ],
)
def test_arithmetic_is_exact(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        *(
            "9**9**9",
            "__import__('os')",
            "1" * 100_000,
            "(1).real",
            "[1]",
            "'a'*9",
            "1/0",
            "factorial(10**9)",
            "sqrt()",
        ),
        *("10**10**10", "(-8)**(1/3)", "True+1", "1j", "a", "", "1 if 1 else 2", "lambda: 1", "-" * 900 + "1"),
        *("round(1, 10**9)", "exp(10**9)", "1e9999999"),
    ],
)
def test_what_is_no_arithmetic_or_too_large_is_refused_at_once(expression: str) -> None:
    began = time.process_time()
    with pytest.raises(ToolError):
        calculate(expression)
    assert time.process_time() - began < 2


@given(st.text(max_size=60))
def test_no_text_brings_the_calculator_down(text: str) -> None:
    with contextlib.suppress(ToolError):
        assert calculate(text)


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_whole_numbers_are_never_rounded(a: int, b: int) -> None:
    assert calculate(f"{a}*{b}-{b}") == str(a * b - b)


@pytest.mark.parametrize(
    ("value", "unit", "into", "told"),
    [
        (5, "miles", "km", "8.04672 km"),
        (100, "f", "c", "37.7777777778 c"),
        (2, "斤", "公斤", "1 公斤"),
        (1, "GiB", "MB", "1073.741824 MB"),
        (36, "km/h", "m/s", "10 m/s"),
        (1, "square metre", "cm", None),
        (1, "parsec", "km", None),
    ],
)
def test_units(value: float, unit: str, into: str, told: str | None) -> None:
    if told is None:
        with pytest.raises(ToolError):
            units.convert(value, unit, into)
    else:
        assert units.convert(value, unit, into) == told


def test_clock_and_dates() -> None:
    assert clock.shift_date("2024-02-28", 2) == "2024-03-01, Friday"
    assert clock.days_between("2026-11-29", "2026-12-25") == 26
    assert "+0800" in clock.tell_time("Asia/Shanghai")
    with pytest.raises(ToolError, match="time zone"):
        clock.tell_time("Mars")
    with pytest.raises(ToolError, match="not a date"):
        clock.shift_date("soon", 1)
    with pytest.raises(ToolError, match="outside the calendar"):
        clock.shift_date("2024-01-01", 10**9)


async def test_search_finds_words_of_both_languages(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Pagodas have storeys.\n\nCats sleep all day.", encoding="utf-8")
    (tmp_path / "b.txt").write_text("宝塔有五层。\n\n猫整天睡觉。", encoding="utf-8")
    (tmp_path / "c.bin").write_bytes(b"cat")
    collection = read_collection(tmp_path)
    assert [hit.source for hit in await collection("a sleeping cat", 5)] == ["a.md"]
    assert [hit.source for hit in await collection("宝塔几层", 5)] == ["b.txt"]
    assert await collection("submarine", 5) == []
    with pytest.raises(InvalidRequest):
        read_collection(tmp_path / "none")


async def test_the_rarer_word_counts_for_more() -> None:
    collection = Collection(
        [Passage("1", "the common word"), Passage("2", "the rare pagoda"), Passage("3", "common common")]
    )
    assert (await collection("common pagoda", 3))[0].source == "2"


async def test_python_runs_behind_a_fence() -> None:
    assert await sandbox.run_python("print(sum(range(10)))") == "45\n"
    for code, why in (
        ("import socket; socket.create_connection(('127.0.0.1', 1))", "not allowed"),
        ("import os; os.system('true')", "not allowed"),
        ("import subprocess; subprocess.run(['true'])", "not allowed"),
        ("x = bytearray(2**31)", "MemoryError"),
        ("open('big', 'wb').write(bytes(20 * 2**20))", "failed"),
        ("1/0", "ZeroDivisionError"),
    ):
        with pytest.raises(ToolError, match=why):
            await sandbox.run_python(code)
    with pytest.raises(ToolError, match="did not end"):
        await sandbox.run_python("import time; time.sleep(60)", sandbox.Fence(seconds=0.5))
    assert "HOME" not in await sandbox.run_python("import os; print(dict(os.environ))")
    assert len(await sandbox.run_python("print('x' * 10**6)")) == 100_000


def test_every_tool_that_comes_with_pagoda_says_what_it_changes() -> None:
    tools = built_in()
    assert {tool.name for tool in tools if tool.needs_approval} == {"python"}
    assert all(tool.read_only or tool.needs_approval for tool in tools)
    assert all(part["description"] for tool in tools for part in tool.parameters["properties"].values())


def test_names_are_unique_and_unknown_ones_are_refused() -> None:
    shelf = open_toolshelf(Tools())
    with pytest.raises(NotFound, match="calculator"):
        shelf.get("calc")
    with pytest.raises(InvalidRequest, match="Two tools"):
        Toolshelf([*built_in(), *built_in()])
    with pytest.raises(InvalidRequest, match="cannot be imported"):
        open_toolshelf(Tools(functions=("no.such:thing",)))
    assert open_toolshelf(Tools(functions=("tests.unit.logic.test_tools:book",))).get("book")


# -- HTTP -------------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def site() -> AsyncIterator[int]:
    """A small site on loopback."""
    app = web.Application()

    async def echo(request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        key = request.headers.get("Idempotency-Key")
        return web.json_response({"path": request.path, "query": dict(request.query), "body": body, "key": key})

    async def away(request: web.Request) -> web.Response:
        raise web.HTTPFound("http://169.254.169.254/latest")

    async def large(request: web.Request) -> web.Response:
        return web.Response(body=bytes(3 * 2**20))

    async def hits(request: web.Request) -> web.Response:
        return web.json_response({"results": [{"url": "u", "title": "T", "content": request.query["q"]}]})

    app.router.add_route("*", "/echo/{rest:.*}", echo)
    app.router.add_get("/away", away)
    app.router.add_get("/large", large)
    app.router.add_get("/search", hits)
    runner = web.AppRunner(app)
    await runner.setup()
    place = web.TCPSite(runner, "127.0.0.1", 0)
    await place.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def test_only_allowed_hosts_are_asked_and_no_private_address(site: int) -> None:
    own = Web((), ("127.0.0.1",))
    assert "/echo/a" in await own.get(f"http://127.0.0.1:{site}/echo/a")
    for url, why in (
        (f"http://127.0.0.1:{site}/away", "not among the hosts"),
        (f"http://127.0.0.1:{site}/large", "longer than"),
        (f"http://127.0.0.1:{site}/none", "404"),
        (f"http://localhost:{site}/echo/a", "not among the hosts"),
        ("ftp://127.0.0.1/", "no address"),
        ("http://user:pw@127.0.0.1/", "password"),
        ("http://[::1", "no address"),
    ):
        with pytest.raises(ToolError, match=why):
            await own.get(url)
    for web_, url in (
        (Web(("127.0.0.1",)), f"http://127.0.0.1:{site}/echo"),
        (Web(("localhost",)), f"http://localhost:{site}/"),
    ):
        with pytest.raises(ToolError, match="private address"):
            await web_.get(url)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("10.1.2.3", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("224.0.0.1", False),
        ("2001:4860:4860::8888", True),
    ],
)
def test_private_addresses_are_known(address: str, public: bool) -> None:
    assert is_public(address) is public


async def test_a_search_server_is_asked_in_its_form(site: int) -> None:
    provider = SearxSearch(f"http://127.0.0.1:{site}", Web((), ("127.0.0.1",)).get_json)
    assert await provider("pagodas", 3) == [Passage("u", "T\npagodas")]


DOCUMENT = """
openapi: 3.1.0
servers: [{url: "http://127.0.0.1:PORT"}]
components: {schemas: {Note: {type: object, properties: {text: {type: string}}, required: [text]}}}
paths:
  /echo/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: string}, description: Which.}]
    get: {operationId: show, summary: Show one., parameters: [{name: full, in: query, schema: {type: boolean}}]}
    post:
      summary: Write one.
      requestBody: {required: true, content: {application/json: {schema: {$ref: "#/components/schemas/Note"}}}}
"""


async def test_operations_of_an_openapi_document_are_tools(tmp_path: Path, site: int) -> None:
    path = tmp_path / "api.yaml"
    path.write_text(DOCUMENT.replace("PORT", str(site)), encoding="utf-8")
    show, write = read_operations("notes", path, Web((), ("127.0.0.1",)))
    assert (show.name, show.read_only, show.needs_approval) == ("notes.show", True, False)
    assert (write.name, write.read_only, write.needs_approval) == ("notes.post_echo_id", False, True)
    found = await perform(show, {"id": "a b", "full": True}, NOWHERE)
    assert found.result["path"] == "/echo/a b"
    assert found.result["query"] == {"full": "true"}
    sent = await perform(write, {"id": "1", "body": {"text": "x"}}, Occasion(key="k1"))
    assert (sent.result["body"], sent.result["key"]) == ({"text": "x"}, "k1")
    assert (await perform(write, {"id": "1", "body": {}}, NOWHERE)).error
    with pytest.raises(ToolError, match="not among"):
        read_operations("notes", path, Web(()))
    path.write_text("- nothing")
    with pytest.raises(InvalidRequest, match="no OpenAPI document"):
        read_operations("notes", path, Web(()))


def test_a_tool_tells_what_it_is() -> None:
    async def nothing(arguments: Any, occasion: Occasion) -> None:
        del arguments, occasion

    told = Tool(name="n", description="d", perform=nothing, idempotent=True).to_json()
    assert told["idempotent"] is True
    assert told["read_only"] is False
