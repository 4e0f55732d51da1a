"""A hub, a proxy and model files of our own making, on loopback."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import select
import socket
import ssl
import struct
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def make_gguf(architecture: str = "llama", *, pad: int = 4096, template: str = "{{ messages }}") -> bytes:
    """A whole GGUF file with one tensor of ``pad`` bytes."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def pair(key: str, kind: int, value: bytes) -> bytes:
        return text(key) + struct.pack("<I", kind) + value

    pairs = [
        pair("general.architecture", 8, text(architecture)),
        pair(f"{architecture}.context_length", 4, struct.pack("<I", 2048)),
        pair(f"{architecture}.embedding_length", 4, struct.pack("<I", 64)),
        pair("general.sampling.temp", 6, struct.pack("<f", 0.5)),
        pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + text("a") + text("b")),
        pair("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, 2) + struct.pack("<2f", 0, 1)),
    ]
    if template:
        pairs.append(pair("tokenizer.chat_template", 8, text(template)))
    tensor = text("output.weight") + struct.pack("<IQIQ", 1, pad // 4, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs)) + b"".join(pairs) + tensor
    return head + bytes(-len(head) % 32) + bytes(index * 7 % 251 for index in range(pad))


@dataclass
class HubServer:
    """Speaks the Hugging Face hub's protocol; its faults are set by the test."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    token: str = ""
    cut_after: list[int] = field(default_factory=list)
    """For each coming answer with a file: how many bytes are sent before the connection is cut."""
    spoil: bool = False
    """Large files arrive with another content than announced."""
    lists_blobs: bool = True
    ignores_ranges: bool = False
    failures: list[int] = field(default_factory=list)
    """Statuses with which the coming answers fail."""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def paths(self, part: str) -> list[str]:
        return [path for _, path, _ in self.requests if part in path]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _large(name: str) -> bool:
    return name.endswith((".gguf", ".safetensors"))


class _HubHandler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub = self.hub
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        hub.requests.append((self.command, self.path, dict(self.headers)))
        if hub.failures:
            self._answer(hub.failures.pop(0), b"")
        elif match := re.fullmatch(r"/storage/([^/]+/[^/]+)/(.+)", path):
            self._send_file(hub.files[match[1]][match[2]], match[2])
        elif not (match := re.match(r"/(?:api/models/)?([^/]+/[^/]+)/(revision|resolve)/([^/]+)/?(.*)", path)):
            self._answer(404, b"")
        else:
            self._hub_answer(*match.groups())

    def _hub_answer(self, repository: str, verb: str, revision: str, name: str) -> None:
        hub = self.hub
        if repository not in hub.files:
            self._answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif repository in hub.gated and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._answer(401, b"", {"X-Error-Code": "GatedRepo"})
        elif revision not in ("main", COMMIT):
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif verb == "revision":
            self._answer(200, json.dumps(self._about(repository)).encode())
        elif name not in hub.files[repository]:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif _large(name):
            content = hub.files[repository][name]
            place = f"/storage/{repository}/{urllib.parse.quote(name)}?signed=1"
            host = self.headers["Host"].replace("127.0.0.1", "localhost")
            scheme = "https" if hub.url.startswith("https") else "http"
            linked = {"X-Linked-Etag": f'"{_digest(content)}"', "X-Linked-Size": str(len(content))}
            self._answer(302, b"", {"Location": f"{scheme}://{host}{place}", **linked})
        else:
            content = hub.files[repository][name]
            self._send_file(content, name)

    def _about(self, repository: str) -> dict[str, Any]:
        siblings = []
        for name, content in self.hub.files[repository].items():
            row: dict[str, Any] = {"rfilename": name}
            if self.hub.lists_blobs:
                row |= {"size": len(content), "blobId": _blob(content)}
                if _large(name):
                    row["lfs"] = {"sha256": _digest(content), "size": len(content), "pointerSize": 134}
            siblings.append(row)
        return {"id": repository, "sha": COMMIT, "siblings": siblings}

    def _send_file(self, content: bytes, name: str) -> None:
        if self.hub.spoil and _large(name):
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = 0
        headers = {"ETag": f'"{_blob(content)}"'}
        status = 200
        if (asked := self.headers.get("Range")) and not self.hub.ignores_ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._answer(status, content[start:], headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.cut_after and status in (200, 206) and "storage" in self.path:
            self.wfile.write(body[: self.hub.cut_after.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(body)


def _run(server: ThreadingHTTPServer) -> Callable[[], None]:
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


@pytest.fixture
def start_hub() -> Iterator[Callable[..., HubServer]]:
    """Starts hubs; with a TLS context, over HTTPS."""
    stops = []

    def start(context: ssl.SSLContext | None = None) -> HubServer:
        hub = HubServer()
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_HubHandler,), {"hub": hub}))
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        hub.url = f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
        stops.append(_run(server))
        return hub

    yield start
    for stop in stops:
        stop()


@pytest.fixture
def hub(start_hub: Callable[..., HubServer]) -> HubServer:
    return start_hub()


@dataclass
class ProxyServer:
    """A forward proxy that also tunnels."""

    url: str = ""
    seen: list[str] = field(default_factory=list)


class _ProxyHandler(BaseHTTPRequestHandler):
    proxy: ProxyServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.proxy.seen.append(f"GET {self.path}")
        place = urllib.parse.urlsplit(self.path)
        upstream = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
        upstream.request("GET", self.path[self.path.index(place.path) :], headers=dict(self.headers))
        answer = upstream.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        upstream.close()

    def do_CONNECT(self) -> None:
        self.proxy.seen.append(f"CONNECT {self.path}")
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as upstream:
            self.send_response(200)
            self.end_headers()
            pair = {upstream: self.connection, self.connection: upstream}
            while ready := select.select(list(pair), [], [], 10)[0]:
                for one in ready:
                    data = one.recv(65536)
                    if not data:
                        return
                    pair[one].sendall(data)


@pytest.fixture
def proxy() -> Iterator[ProxyServer]:
    about = ProxyServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_ProxyHandler,), {"proxy": about}))
    about.url = f"http://127.0.0.1:{server.server_port}"
    stop = _run(server)
    yield about
    stop()


@pytest.fixture
def gguf() -> Callable[..., bytes]:
    return make_gguf


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow at once, and no proxy of the developer's own stands between test and loopback."""
    monkeypatch.setattr("pagoda.model.catalog.hub.time.sleep", lambda seconds: None)
    for name in (
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"
