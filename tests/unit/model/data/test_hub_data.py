"""Data sets of the hub: a server on loopback speaks as much of its protocol as the library asks for."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    f"data/{split}.jsonl": "".join(
        json.dumps({"prompt": f"第{number}问", "completion": f"{split} {number}"}) + "\n" for number in range(count)
    ).encode()
    for split, count in (("train", 5), ("test", 2))
}
READS = """
from pagoda.core.errors import PagodaError
from pagoda.model.data.reading import read_data
for source in ("hub:own/set", "hub:own/set#test", "hub:own/set#other", "hub:own/none"):
    try:
        found = read_data(source)
        print(found.form, [row.content["completion"] for row in found.rows])
    except PagodaError as error:
        print(error.message)
"""


class _Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if re.fullmatch(rf"/api/datasets/own/set(/revision/{COMMIT})?", path):
            siblings = [{"rfilename": name} for name in FILES]
            self._send(200, json.dumps({"id": "own/set", "sha": COMMIT, "siblings": siblings, "tags": []}).encode())
        elif path == f"/api/datasets/own/set/tree/{COMMIT}":
            self._send(200, json.dumps([{"type": "directory", "path": "data", "oid": COMMIT}]).encode())
        elif path == f"/api/datasets/own/set/tree/{COMMIT}/data":
            rows = [{"type": "file", "path": name, "size": len(FILES[name]), "oid": COMMIT} for name in FILES]
            self._send(200, json.dumps(rows).encode())
        elif (match := re.fullmatch(rf"/datasets/own/set/resolve/{COMMIT}/(.+)", path)) and match[1] in FILES:
            content = FILES[match[1]]
            start, end = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "bytes=0-999999")).groups()  # type: ignore[union-attr]
            part = content[int(start) : int(end) + 1]
            place = f"bytes {start}-{int(start) + len(part) - 1}/{len(content)}"
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            self._send(206, part, {"Content-Range": place, "ETag": etag, "X-Repo-Commit": COMMIT})
        else:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound" if "/own/set/" in path else "RepoNotFound"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_set_of_the_hub_is_read_by_split_and_what_is_not_there_is_said(hub: str, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    # In a process of its own: the library reads where its hub is when it is imported.
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", READS], env=environment, capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.splitlines() == [
        f"completion {[f'train {number}' for number in range(5)]}",
        "completion ['test 0', 'test 1']",
        "The data set own/set cannot be read (Bad split: other. Available splits: ['train', 'test']).",
        "The data set own/none cannot be read (Dataset 'own/none' doesn't exist on the Hub or cannot be accessed.).",
    ]
