"""Upstreams that cost next to nothing: nginx with canned answers, and a server of streams that keep a beat."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from aiohttp import web

from tests.services import free_port

LOAD_CORE, GATEWAY_CORE = "1", "0"
TEXT = "The answer to everything is forty-two."
USAGE = {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20}

_HEAD = {"id": "chatcmpl-1", "created": 1, "model": "mock"}


def _chunk(**more: object) -> str:
    return "data: " + orjson.dumps({**_HEAD, "object": "chat.completion.chunk", **more}).decode() + "\n\n"


def _choice(delta: dict[str, str], reason: str | None = None) -> list[dict[str, object]]:
    return [{"index": 0, "delta": delta, "finish_reason": reason}]


WHOLE = orjson.dumps(
    {
        **_HEAD,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
).decode()
STREAM = "".join(
    (
        _chunk(choices=_choice({"role": "assistant", "content": ""})),
        _chunk(choices=_choice({"content": TEXT})),
        _chunk(choices=_choice({}, "stop")),
        _chunk(choices=[], usage=USAGE),
        "data: [DONE]\n\n",
    )
)


@contextmanager
def canned_answers() -> Iterator[str]:
    """nginx that answers every question the same: ``/whole/v1`` with JSON, ``/stream/v1`` with frames; its address.

    Pagoda asks every engine for a stream, whatever its client wants; the peers ask as their client does.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nginx.conf"
        path = "v1/chat/completions"
        config.write_text(
            f"""
            worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
            events {{ worker_connections 4096; }}
            http {{
              access_log off; keepalive_requests 100000000; keepalive_timeout 300s;
              server {{
                listen 127.0.0.1:{port} backlog=4096;
                location /whole/{path} {{ default_type application/json; return 200 '{WHOLE}'; }}
                location /stream/{path} {{ default_type text/event-stream; return 200 '{STREAM}'; }}
              }}
            }}
            """,
            encoding="utf-8",
        )
        child = subprocess.Popen(["taskset", "-c", LOAD_CORE, "nginx", "-e", f"{folder}/error.log", "-c", str(config)])
        try:
            _await_listener(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            child.terminate()
            child.wait()


@contextmanager
def beating_streams() -> Iterator[str]:
    """A server whose streams bring ``n`` frames, ``every`` seconds one, each with its number and when it was sent."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.gateway.upstream", str(port)]
    child = subprocess.Popen(["taskset", "-c", LOAD_CORE, *command])
    try:
        _await_listener(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.terminate()
        child.wait()


def _await_listener(port: int, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


async def _beat(request: web.Request) -> web.StreamResponse:
    """The last message says ``frames seconds``."""
    asked = await request.json()
    frames, every = asked["messages"][-1]["content"].split()
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    loop = asyncio.get_running_loop()
    due = loop.time() + hash(id(request)) % 1000 / 1000 * float(every)  # streams do not beat all at once
    for number in range(int(frames)):
        due += float(every)
        await asyncio.sleep(due - loop.time())
        await response.write(_chunk(choices=_choice({"content": f"{number} {time.monotonic_ns()};"})).encode())
    await response.write((_chunk(choices=_choice({}, "stop")) + _chunk(choices=[], usage=USAGE)).encode())
    await response.write(b"data: [DONE]\n\n")
    return response


if __name__ == "__main__":
    logging.disable()  # clients that leave at the end of a run are no news
    application = web.Application()
    application.router.add_post("/v1/chat/completions", _beat)
    web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
