"""One line a request: who asked what of which model, what became of it, and where the time went.

Never a secret, a prompt or an answer. A line is made in a few microseconds and handed on; who writes it is the
application's business.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson
from starlette.types import Scope

from pagoda.core.settings import Log
from pagoda.interface.access import KEY
from pagoda.service.keys.key import Key
from pagoda.service.note import Note

_OURS = "/internal/"
_WATCHERS = ("/health", "/ready", "/metrics")


class Journal:
    """Makes the lines. Requests of Pagoda's own processes are told by the process that was asked."""

    def __init__(self, settings: Log, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._json = settings.format == "json"
        self._all = settings.access == "all"
        self._second = 0
        self._spelled = ""

    def tell(self, scope: Scope, note: Note, endpoint: str, status: int) -> None:
        """A request is over."""
        failed = status >= 400
        if not (failed or (self._all and endpoint not in _WATCHERS)) or endpoint.startswith(_OURS):
            return
        key: Key | None = scope.get(KEY)
        seconds = time.perf_counter() - note.began
        if self._json:
            self._write(orjson.dumps(self._entry(scope, note, endpoint, status, seconds, key)) + b"\n")
        else:
            self._write(self._text(scope, note, status, seconds, key))

    def _now(self) -> tuple[str, int]:
        now = time.time()
        if int(now) != self._second:  # spelling a time costs more than the rest of the line
            self._second = int(now)
            form = "%Y-%m-%dT%H:%M:%S" if self._json else "%H:%M:%S"
            self._spelled = time.strftime(form, time.gmtime(now) if self._json else time.localtime(now))
        return self._spelled, int(now % 1 * 1000)

    def _entry(
        self, scope: Scope, note: Note, endpoint: str, status: int, seconds: float, key: Key | None
    ) -> dict[str, Any]:
        spelled, milliseconds = self._now()
        entry: dict[str, Any] = {
            "time": f"{spelled}.{milliseconds:03d}Z",
            "level": "info" if status < 500 else "error",
            "logger": "pagoda.access",
            "message": f"{scope['method']} {endpoint} {status}",
            "request_id": scope["state"]["request_id"],
            "key_id": None if key is None else key.id,
            "team": "local" if key is None else key.team,
            "route": endpoint,
            "status": status,
            "seconds": round(seconds, 6),
        }
        if note.model:
            entry |= {
                "model": note.model,
                "queue_seconds": round(note.queue, 6),
                "engine_seconds": round(note.engine, 6),
                "first_token_seconds": None if note.first is None else round(note.first - note.began, 6),
                "prompt_tokens": note.prompt,
                "completion_tokens": note.completion,
                "cached_tokens": note.cached,
                "cache": note.cache,
                "attempts": note.attempts or int(note.engine > 0),
                "finish": note.finish,
            }
        return entry

    def _text(self, scope: Scope, note: Note, status: int, seconds: float, key: Key | None) -> bytes:
        spelled, _ = self._now()
        who = "" if key is None else f" {key.team}/{key.id}"
        model = ""
        if note.model:
            model = f" {note.model} {note.prompt}+{note.completion} tokens"
            if note.cache == "hit":
                model += " from the cache"
        path = scope["path"].encode("unicode_escape").decode()[:200]
        request_id = scope["state"]["request_id"]
        line = f"{spelled} REQUEST {scope['method']} {path} {status} {seconds * 1000:.0f} ms{model}{who} {request_id}\n"
        return line.encode("utf-8", "replace")
