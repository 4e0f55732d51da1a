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
from typing import Any

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SUBSETS = """---
configs:
- config_name: films
  data_files: [{split: train, path: data/films.jsonl}]
- config_name: books
  data_files: [{split: train, path: data/books.jsonl}]
dataset_info:
- config_name: films
  features:
  - {name: text, dtype: string}
  - {name: label, dtype: {class_label: {names: {'0': bad, '1': good}}}}
- config_name: books
  features:
  - {name: text, dtype: string}
---
"""


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


SETS = {
    "own/set": {
        f"data/{split}.jsonl": lines(*({"prompt": f"第{n}问", "completion": f"{split} {n}"} for n in range(count)))
        for split, count in (("train", 5), ("test", 2))
    },
    "own/parts": {
        "README.md": SUBSETS.encode(),
        "data/films.jsonl": lines(*({"text": f"film {label}", "label": label} for label in (1, 0, -1))),
        "data/books.jsonl": lines({"text": "a book"}),
    },
}
READS = """
from pagoda.core.errors import PagodaError
from pagoda.model.data.reading import read_data
sets = ("set", "set#test", "set#other", "none", "parts/films", "parts/books#train", "parts", "parts/plays", "/")
for source in sets:
    try:
        found = read_data(f"hub:own/{source}")
        print(found.form, [row.text.splitlines()[-1] for row in found.rows], [row.label for row in found.rows])
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
        asked = re.fullmatch(r"(?:/api)?/datasets/(own/\w+)(.*)", path)
        files = SETS.get(asked[1]) if asked else None
        rest = asked[2] if asked else ""
        if files is None:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif rest in ("", f"/revision/{COMMIT}"):
            siblings = [{"rfilename": name} for name in files]
            told = {"id": asked and asked[1], "sha": COMMIT, "siblings": siblings, "tags": []}
            self._send(200, json.dumps(told).encode())
        elif rest == f"/tree/{COMMIT}":
            self._send(200, json.dumps([{"type": "directory", "path": "data", "oid": COMMIT}]).encode())
        elif rest == f"/tree/{COMMIT}/data":
            rows = [{"type": "file", "path": name, "size": len(files[name]), "oid": COMMIT} for name in files]
            self._send(200, json.dumps([row for row in rows if "/" in str(row["path"])]).encode())
        elif (match := re.fullmatch(r"/resolve/(?:main|[0-9a-f]+)/(.+)", rest)) and match[1] in files:
            content = files[match[1]]
            start, end = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "bytes=0-999999")).groups()  # type: ignore[union-attr]
            part = content[int(start) : int(end) + 1]
            place = f"bytes {start}-{int(start) + len(part) - 1}/{len(content)}"
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            status = 206 if "Range" in self.headers else 200
            self._send(status, part, {"Content-Range": place, "ETag": etag, "X-Repo-Commit": COMMIT})
        else:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})

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


def test_a_set_of_the_hub_is_read_by_subset_and_split_and_what_is_not_there_is_said(hub: str, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    # In a process of its own: the library reads where its hub is when it is imported.
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", READS], env=environment, capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.splitlines() == [
        f"completion {[f'train {number}' for number in range(5)]} {[None] * 5}",
        "completion ['test 0', 'test 1'] [None, None]",
        "The data set own/set cannot be read (Bad split: other. Available splits: ['train', 'test']); a subset is "
        "named as hub:own/set/SUBSET.",
        "The data set own/none cannot be read (Dataset 'own/none' doesn't exist on the Hub or cannot be accessed); a "
        "subset is named as hub:own/none/SUBSET.",
        "classification ['film 1', 'film 0'] ['good', 'bad']",
        "text ['a book'] [None]",
        "The data set own/parts cannot be read (Config name is missing); a subset is named as hub:own/parts/SUBSET.",
        "The data set own/parts cannot be read (BuilderConfig 'plays' not found. Available: ['films', 'books']).",
        "hub:own// names no data set of the hub; write hub:OWNER/NAME/SUBSET#SPLIT.",
    ]
