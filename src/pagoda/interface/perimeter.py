"""What every HTTP request meets first: an id, the loopback rule, the size limit, and the counters.

Plain ASGI, so that streams pass through untouched. Without keys the service serves its own machine's user alone: a web
page elsewhere (foreign ``Origin``), a rebound name (foreign ``Host``) and a proxy's other clients (forwarding headers)
are refused. Where keys are needed the key decides instead (``access``): no page elsewhere has one, and CORS says which
pages may send theirs.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pagoda.core.types import new_id
from pagoda.interface.journal import Journal
from pagoda.interface.problems import refusal
from pagoda.service.limits.standing import SLOT as STANDING
from pagoda.service.note import SLOT, Note
from pagoda.service.telemetry import Telemetry

_FORWARDING = frozenset(
    (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", b"via")
)
_UPLOADS = ("/v1/files", "/documents")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether a host name or address (without port) is this machine's loopback."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def header_of(scope: Scope, wanted: bytes) -> str | None:
    """A header of the request. Servers give their names in small letters."""
    for name, value in scope["headers"]:
        if name == wanted:
            text: str = value.decode("latin-1")
            return text
    return None


@lru_cache(maxsize=256)
def _name_of(host: str) -> str:
    """The name in a ``Host`` header, without its port."""
    return urlsplit(f"//{host}").hostname or ""


class Loopback:
    """Refuses (403) whatever does not come from this machine's own programs and pages, while no key is needed."""

    def __init__(self, app: ASGIApp, origins: Iterable[str], keyless: Callable[[], bool]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._keyless = keyless

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and self._keyless() and (reason := self._reason(scope)):
            await refusal(scope["path"], 403, reason, "forbidden")(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _reason(self, scope: Scope) -> str | None:
        host = header_of(scope, b"host") or ""
        if not is_loopback(_name_of(host)):
            return f"Without keys Pagoda answers only on loopback names such as localhost, not as {host!r}."
        origin = header_of(scope, b"origin")
        if origin is not None and urlsplit(origin).netloc != host and origin not in self._origins:
            return f"Pages of {origin} may not call this service; server.cors_origins can allow them."
        for name, _ in scope["headers"]:
            if name in _FORWARDING:
                return "Without keys Pagoda does not answer requests that a proxy passes on."
        return None


class Limits:
    """Refuses (413) bodies over the limit, whether their length is announced or not."""

    def __init__(self, app: ASGIApp, max_body_bytes: int, max_file_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes
        self._file_limit = max_file_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        limit = self._file_limit if path.endswith(_UPLOADS) else self._limit

        async def refuse() -> None:
            too_large = refusal(path, 413, f"The body is larger than the limit of {limit} bytes.", "body_too_large")
            await too_large(scope, receive, send)

        announced = header_of(scope, b"content-length")
        if announced is not None and announced.isdigit() and header_of(scope, b"transfer-encoding") is None:
            if int(announced) > limit:
                await refuse()
            else:  # the server passes on no more than was announced
                await self._app(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _BodyTooLarge
            return message

        async def guarded(message: Message) -> None:
            if seen <= limit:  # else: whatever the application makes of a broken-off body
                await send(message)

        with contextlib.suppress(_BodyTooLarge):  # it comes through where nobody below takes it for a failed read
            await self._app(scope, counted, guarded)
        if seen > limit:
            await refuse()


class SubPath:
    """Serves under a URL path, whether the proxy in front strips it or not."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root = "/" + root_path.strip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on under the path."""
        if scope["type"] == "http":
            path = scope["path"]
            inside = path == self._root or path.startswith(self._root + "/")
            scope = {**scope, "root_path": self._root, "path": path if inside else self._root + path}
        await self._app(scope, receive, send)


class _BodyTooLarge(Exception):
    """Control signal: an unannounced body passed the limit."""


class Entrance:
    """Names each request (``X-Request-Id``, the client's own if it is sane), counts it and has a line written of it.

    It also opens the slot for how a limited key stands, and sends what is in it with the answer's head
    (``x-ratelimit-*``), refusals and streams too; calls that have no limits leave it empty.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry, journal: Journal | None) -> None:
        self._app = app
        self._telemetry = telemetry
        self._journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = header_of(scope, b"x-request-id")
        request_id = given if given is not None and _REQUEST_ID.fullmatch(given) else new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        note, status, telemetry = Note(request_id), 499, self._telemetry
        SLOT.set(note)
        standing: dict[str, str] = {}
        STANDING.set(standing)

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if note.model and status < 400 and (spent := note.overhead()) is not None:
                    telemetry.overhead.tally(_endpoint(scope)).observe(spent)
                told = [(name.encode(), value.encode()) for name, value in standing.items()]
                message["headers"] = [*message["headers"], *told, (b"x-request-id", request_id.encode())]
            await send(message)

        traced = telemetry.traces.request(scope["method"], scope["path"], scope["headers"])
        try:
            with traced as span:
                try:
                    await self._app(scope, receive, named)
                finally:
                    if span:
                        span.name(f"{scope['method']} {_endpoint(scope)}")
                        span.note({"http.route": _endpoint(scope), "http.response.status_code": status})
                        span.note({"pagoda.request_id": request_id})
        finally:
            note.end(status)
            endpoint = _endpoint(scope)
            telemetry.http_requests.count(endpoint, str(status)).inc()
            telemetry.http_duration.tally(endpoint).observe(note.spent)
            if self._journal is not None:
                self._journal.tell(scope, note, endpoint, status)


def _endpoint(scope: Scope) -> str:
    """The route's template: paths as they are asked for would make labels without end."""
    return getattr(scope.get("route"), "path", "other")
