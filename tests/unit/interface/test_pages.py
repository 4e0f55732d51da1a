"""The pages: what is served, with which headers, and that their files fit together."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.errors import NotFound
from pagoda.interface.pages import MEDIA_TYPES, WEB, Shelf, pages_router

OWN_FILES = [path for path in WEB.rglob("*") if path.is_file() and "vendor" not in path.parts]
SCRIPTS = [path for path in OWN_FILES if path.suffix == ".js"]
LOCALES = {language: json.loads((WEB / "locales" / f"{language}.json").read_text("utf-8")) for language in ("en", "zh")}


class Answer:
    """One response, as bytes went over the wire."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def text(self) -> str:
        return self.body.decode()


async def ask(path: str, headers: Mapping[str, str] | None = None, method: str = "GET", root_path: str = "") -> Answer:
    """Ask the app for ``path`` exactly as written: no client tidies it up first."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": root_path,
        "query_string": b"",
        "headers": [
            (name.lower().encode(), value.encode()) for name, value in {"Host": "127.0.0.1", **(headers or {})}.items()
        ],
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 5000),
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await make_app()(scope, receive, send)
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:]))


def make_app() -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None)
    app.include_router(pages_router())

    @app.exception_handler(NotFound)
    async def not_found(request: Request, error: NotFound) -> Response:
        return Response(error.message, status_code=404)

    return app


def version() -> str:
    return Shelf(WEB).version


@pytest.mark.parametrize("path", ["/", "/knowledge", "/docs"])
async def test_a_page_is_html_that_the_browser_asks_for_again(path: str) -> None:
    answer = await ask(path)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert "{{" not in answer.text
    assert (await ask(path, {"If-None-Match": answer.headers["etag"]})).status == 304


@pytest.mark.parametrize("path", ["/", "/knowledge", "/docs", "/static/js/app.js", "/favicon.ico"])
async def test_every_answer_carries_the_safety_headers(path: str) -> None:
    headers = (await ask(path)).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/", "/knowledge"])
async def test_what_a_model_wrote_enters_a_page_through_the_sanitizer_alone(path: str) -> None:
    policy = (await ask(path)).headers["content-security-policy"]
    assert "require-trusted-types-for 'script'" in policy
    assert "trusted-types dompurify" in policy
    assert "img-src 'self';" in policy


@pytest.mark.parametrize("name", Shelf(WEB).names())
async def test_every_file_is_served_as_it_is_with_its_type(name: str) -> None:
    answer = await ask(f"/static/{version()}/{name}")
    assert answer.status == 200
    assert answer.headers["content-type"] == MEDIA_TYPES[Path(name).suffix]
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.body == (WEB / name).read_bytes()


async def test_a_file_without_version_is_asked_for_again_every_time() -> None:
    answer = await ask("/static/css/tokens.css")
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-cache")
    again = await ask(
        "/static/css/tokens.css", {"If-None-Match": f'"other", {answer.headers["etag"].removeprefix("W/")}'}
    )
    assert (again.status, again.body) == (304, b"")
    assert (await ask("/static/css/tokens.css", {"If-None-Match": '"other"'})).status == 200


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [
        ("gzip, br", True),
        ("br, GZIP;q=0.5", True),
        ("*", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
    ],
)
async def test_a_file_is_compressed_for_those_who_can_read_it(accepted: str, is_compressed: bool) -> None:
    answer = await ask("/static/js/app.js", {"Accept-Encoding": accepted})
    assert (answer.headers.get("content-encoding") == "gzip") is is_compressed
    assert answer.headers["vary"] == "Accept-Encoding"
    body = gzip.decompress(answer.body) if is_compressed else answer.body
    assert body == (WEB / "js/app.js").read_bytes()


async def test_head_answers_like_get() -> None:
    assert (await ask("/", method="HEAD")).status == 200
    assert (await ask("/", method="POST")).status == 405


@pytest.mark.parametrize(
    "name",
    [
        "nothing.js",
        "",
        "js",
        "js/",
        "../pages.py",
        "..%2fpages.py",
        "js/../../pages.py",
        "js/../index.html",
        "/etc/passwd",
        "js\\app.js",
        "js/app.js\x00",
    ],
)
async def test_a_name_that_is_no_page_file_is_404(name: str) -> None:
    assert (await ask(f"/static/{name}")).status == 404
    assert (await ask(f"/static/{version()}/{name}")).status == 404


async def test_an_old_version_is_404_rather_than_a_mixture() -> None:
    assert (await ask("/static/000000000000/js/app.js")).status == 404


@given(name=st.text(alphabet="./\\%2fejsap~", max_size=30))
def test_no_name_leaves_the_shelf(name: str) -> None:
    shelf = Shelf(WEB)
    if name not in shelf.names():
        with pytest.raises(NotFound):
            shelf.file(name)


def test_the_version_follows_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("1")
    before = Shelf(tmp_path).version
    assert Shelf(tmp_path).version == before
    (tmp_path / "a.js").write_text("2")
    assert Shelf(tmp_path).version != before


async def test_pages_work_below_a_sub_path_and_name_no_absolute_address() -> None:
    for root_path, path in [("", "/"), ("/pagoda", "/pagoda/"), ("", "/knowledge"), ("/pagoda", "/pagoda/docs")]:
        answer = await ask(path, root_path=root_path)
        assert answer.status == 200
        addresses = re.findall(r'(?:href|src)="([^"]*)"', answer.text)
        assert addresses
        for address in addresses:
            assert not address.startswith("/")
            assert "://" not in address
    assert (await ask(f"/pagoda/static/{version()}/js/app.js", root_path="/pagoda")).status == 200


async def test_a_sub_path_without_its_slash_leads_to_the_page() -> None:
    answer = await ask("/pagoda", root_path="/pagoda")
    assert answer.status == 307
    assert answer.headers["location"].endswith("/pagoda/")


def test_pages_are_not_part_of_the_api_document() -> None:
    assert make_app().openapi()["paths"] == {}


async def test_every_file_that_a_page_names_exists() -> None:
    for page in ("/", "/knowledge", "/docs"):
        for address in re.findall(r'(?:href|src)="(static/[^"]*)"', (await ask(page)).text):
            assert (await ask(f"/{address}")).status == 200
    for script in SCRIPTS:
        for address in re.findall(r'(?:from |import |import\()"(\.[^"]+)"', script.read_text("utf-8")):
            assert (script.parent / address).is_file(), f"{script.name} imports {address}"


def test_vendored_files_are_those_of_the_manifest() -> None:
    vendor = WEB / "vendor"
    manifest = json.loads((vendor / "manifest.json").read_text("utf-8"))
    for row in manifest:
        assert hashlib.sha256((vendor / row["file"]).read_bytes()).hexdigest() == row["sha256"], row["file"]
        assert (vendor / row["licence_file"]).stat().st_size > 500
        assert row["package"] == f"npm:{row['package'].removeprefix('npm:').rsplit('@', 1)[0]}@{row['version']}"
        assert row["licence"]
    scripts = {path.relative_to(vendor).as_posix() for path in vendor.rglob("*") if path.suffix in (".js", ".css")}
    assert scripts == {row["file"] for row in manifest}


def test_languages_have_the_same_words_with_the_same_places() -> None:
    assert LOCALES["en"].keys() == LOCALES["zh"].keys()
    for key, text in LOCALES["en"].items():
        assert text.strip()
        assert sorted(re.findall(r"\{(\w+)\}", text)) == sorted(re.findall(r"\{(\w+)\}", LOCALES["zh"][key])), key


def test_every_word_that_is_used_exists_and_every_word_is_used() -> None:
    text = "\n".join(path.read_text("utf-8") for path in [*SCRIPTS, *WEB.glob("*.html")])
    used = set(re.findall(r'\bt\(\s*"([^"]+)"', text)) | set(
        re.findall(r'data-i18n(?:-label|-placeholder)?="([^"]+)"', text)
    )
    assert used <= LOCALES["en"].keys()
    # Keys in tables and ternaries are plain strings; keys with a variable end are named by their beginning.
    prefixes = tuple(re.findall(r"\bt\(`([\w.]+\.)\$\{", text))
    unused = {
        key for key in LOCALES["en"] if key not in used and f'"{key}"' not in text and not key.startswith(prefixes)
    }
    assert not unused


@pytest.mark.parametrize("path", OWN_FILES, ids=lambda path: path.relative_to(WEB).as_posix())
def test_our_files_name_no_other_host(path: Path) -> None:
    addresses = set(re.findall(r"https?://[^\s\"'`)<]+", path.read_text("utf-8")))
    assert addresses <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_our_scripts_take_no_markup_and_run_no_text(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\"/(v1|static|docs)", text
    )
    assert len(text.splitlines()) <= 400
