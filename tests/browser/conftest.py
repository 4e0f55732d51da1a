"""A service with scripted answers, and headless Chromium to look at its pages.

``start_service`` is the one place that knows what stands behind the page: any service that answers so will do.
The last word of a question that starts with ``!`` names the script; see ``_SCRIPTS``.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from pagoda.core.errors import NotFound
from pagoda.interface.pages import pages_router
from pagoda.interface.sse import EventStream

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

MARKDOWN = """## Sorting

Use **sorted**, it is *stable*:

```python
def order(items: list[int]) -> list[int]:
    return sorted(items)  # a new list
```

| step | cost |
|------|-----:|
| compare | n log n |

1. first
2. second, see [the manual](https://example.com/sort)

![a picture](https://example.com/tracker.png)

最后一句：中文也可以。
"""

XSS = """<script>window.hacked = 1</script>
<img src=x onerror="window.hacked = 2">
<svg onload="window.hacked = 3"></svg>
<iframe srcdoc="<script>parent.hacked = 4</script>"></iframe>
[click](javascript:window.hacked=5)
[data](data:text/html,<script>window.hacked=6</script>)
![x](x"onerror="window.hacked=7)
<a href="java&#10;script:window.hacked=8">a</a>
<math><mtext><table><mglyph><style><img src=x onerror="window.hacked=9"></style></mglyph></table></mtext></math>
<details open ontoggle="window.hacked=10">x</details>

```"><img src=x onerror="window.hacked=11">
</code></pre><img src=x onerror="window.hacked=12">
```

<form action="javascript:window.hacked=13"><button id="send" class="send">go</button></form>
<style>@import url(https://example.com/x.css);</style><base href="https://example.com/">
"""


@dataclass
class Service:
    """A running service: where it is, and what it was asked."""

    url: str
    stop: Callable[[], None]
    requests: list[dict[str, Any]] = field(default_factory=list)
    """The chat requests, in order."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set when a client left before its answer was complete."""
    go_on: threading.Event = field(default_factory=threading.Event)
    """An answer of the script ``hold`` waits for this in its middle."""


def start_service(root_path: str = "", key: str = "", proxy_tells: bool = True) -> Service:
    """A service on a free port, below ``root_path``; with ``key`` it answers only requests that carry it.

    ``proxy_tells`` says whether the app learns of ``root_path``, or a proxy silently strips it from the address.
    """
    service = Service(url="", stop=lambda: None)
    app = FastAPI(docs_url=None, redoc_url=None)
    app.include_router(pages_router())
    _add_scripted_models(app, service, key)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        _proxied(app, root_path, proxy_tells),
        log_level="warning",
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()

    service.url = f"http://127.0.0.1:{listener.getsockname()[1]}{root_path}/"
    service.stop = stop
    return service


def _proxied(app: FastAPI, root_path: str, tells: bool) -> Any:
    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if not path.startswith(root_path):
            await Response(status_code=404)(scope, receive, send)
            return
        changed = {"root_path": root_path} if tells else {"path": path.removeprefix(root_path) or "/"}
        await app({**scope, **changed}, receive, send)

    return proxy


def _add_scripted_models(app: FastAPI, service: Service, key: str) -> None:
    @app.exception_handler(NotFound)
    async def not_found(request: Request, error: NotFound) -> Response:
        return _refusal(404, error.message, error.code)

    @app.middleware("http")
    async def authenticate(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if key and "/v1/" in request.url.path and request.headers.get("authorization") != f"Bearer {key}":
            given = "authorization" in request.headers
            return _refusal(401, "No such key.", "invalid_api_key" if given else "missing_api_key")
        return await call_next(request)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        rows = [
            ("small-chat", "chat", "ready", True),
            ("large-chat", "chat", "unloaded", False),
            ("embedder", "embedding", "ready", True),
        ]
        return {
            "object": "list",
            "data": [
                {
                    "id": name,
                    "object": "model",
                    "owned_by": "pagoda",
                    "pagoda": {"task": task, "state": state, "default": default},
                }
                for name, task, state, default in rows
            ],
        }

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await request.json()
        service.requests.append(body)
        question = body["messages"][-1]["content"]
        script = question.split()[-1] if question.startswith("!") else "echo"
        headers = {"X-Request-Id": f"req-{len(service.requests)}"}
        if script == "refuse":
            return _refusal(
                400, "The prompt has 9000 tokens; this model's context holds 8192.", "context_length_exceeded", headers
            )
        # Not StreamingResponse: it leaves closing its source to the garbage collector when the client goes.
        return EventStream(_answer(script, question, service), 60.0, headers)


def _refusal(status: int, message: str, code: str, headers: dict[str, str] | None = None) -> JSONResponse:
    detail = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": detail}, status_code=status, headers=headers or {"X-Request-Id": "req-refused"})


async def _answer(script: str, question: str, service: Service) -> AsyncIterator[bytes]:
    complete = False
    try:
        async for data in _SCRIPTS[script](question, service):
            yield data if isinstance(data, bytes) else _frame(data)
        complete = True
    finally:
        if not complete:
            service.cancelled.set()


def _frame(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def _piece(text: str = "", finish: str | None = None, **delta: str) -> dict[str, Any]:
    content = {"content": text} if text else {}
    return {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": content | delta, "finish_reason": finish}],
    }


def _end(tokens: int, finish: str = "stop") -> list[dict[str, Any] | bytes]:
    usage = {"prompt_tokens": 12, "completion_tokens": tokens, "total_tokens": 12 + tokens}
    return [
        _piece(finish=finish),
        {"object": "chat.completion.chunk", "choices": [], "usage": usage},
        b"data: [DONE]\n\n",
    ]


_Script = Callable[[str, Service], AsyncIterator[dict[str, Any] | bytes]]


def _text(text: str, size: int = 7) -> _Script:
    async def play(question: str, service: Service) -> AsyncIterator[dict[str, Any] | bytes]:
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        for piece in pieces:
            yield _piece(piece)
            await asyncio.sleep(0)
        for last in _end(len(pieces)):
            yield last

    return play


async def _echo(question: str, service: Service) -> AsyncIterator[dict[str, Any] | bytes]:
    async for part in _text(f"You said: {question}")(question, service):
        yield part


async def _hold(question: str, service: Service) -> AsyncIterator[dict[str, Any] | bytes]:
    yield b": keep-alive\n\n"
    yield _piece("The first half, ")
    while not service.go_on.is_set():
        yield b": keep-alive\n\n"
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)  # long enough for a speed to mean something
    yield _piece("the second half.")
    for last in _end(2):
        yield last


async def _break(question: str, service: Service) -> AsyncIterator[dict[str, Any] | bytes]:
    yield _piece("It began well, ")
    yield {
        "error": {
            "message": "The engine stopped; try again.",
            "type": "server_error",
            "param": None,
            "code": "model_unavailable",
        }
    }


async def _cut(question: str, service: Service) -> AsyncIterator[dict[str, Any] | bytes]:
    yield _piece("It began well, ")


async def _think(question: str, service: Service) -> AsyncIterator[dict[str, Any] | bytes]:
    yield _piece(reasoning_content="Let me <b>see</b>.")
    yield _piece("Seen.")
    for last in _end(2, "length"):
        yield last


async def _cut_anywhere(question: str, service: Service) -> AsyncIterator[dict[str, Any] | bytes]:
    """CRLF line ends, one byte at a time: frames and characters are cut everywhere."""
    frames = [_frame(_piece(piece)) for piece in ("Grüße, ", "世界", "! 🙂")] + [
        part if isinstance(part, bytes) else _frame(part) for part in _end(3)
    ]
    for byte in b"".join(frames).replace(b"\n", b"\r\n"):
        yield bytes([byte])


_SCRIPTS: dict[str, _Script] = {
    "echo": _echo,
    "markdown": _text(MARKDOWN),
    "xss": _text(XSS, 3),
    "hold": _hold,
    "break": _break,
    "cut": _cut,
    "think": _think,
    "bytes": _cut_anywhere,
    "long": _text("\n\n".join(f"Paragraph {number} of a **long** answer with `code`." for number in range(2000)), 40),
}


def _chromium() -> str:
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("PAGODA_REQUIRE") == "all":
            pytest.fail("chromium is not installed, and PAGODA_REQUIRE=all demands it")
        pytest.skip("chromium is not installed")
    return path


@pytest.fixture
def start() -> Callable[..., Service]:
    """``start_service``, for tests that need another than the plain one."""
    return start_service


@pytest.fixture
def service() -> Iterator[Service]:
    running = start_service()
    yield running
    running.go_on.set()
    running.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    path = _chromium()
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A fresh profile in English."""
    opened = await browser.new_context(locale="en-GB", permissions=["clipboard-read", "clipboard-write"])
    opened.set_default_timeout(15_000)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="session")
async def page(context: BrowserContext) -> AsyncIterator[Page]:
    """A tab whose own mistakes (script errors, a broken security policy, requests to elsewhere) fail the test."""
    opened = await context.new_page()
    mistakes: list[str] = []
    opened.on("pageerror", lambda error: mistakes.append(f"script error: {error}"))
    opened.on("console", lambda said: mistakes.append(said.text) if "Content Security Policy" in said.text else None)
    opened.on(
        "request",
        lambda asked: (
            None
            if asked.url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:"))
            else mistakes.append(asked.url)
        ),
    )
    yield opened
    assert not mistakes
