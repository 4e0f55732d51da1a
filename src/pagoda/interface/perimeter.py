"""What every HTTP request meets first: an id, the loopback rule, the size limit, and the counters.

Plain ASGI, so that streams pass through untouched. Without keys the service serves its own machine's user alone: a web
page elsewhere (foreign ``Origin``), a rebound name (foreign ``Host``) and a proxy's other clients (forwarding headers)
are refused.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pagoda.core.types import new_id
from pagoda.interface.problems import refusal
from pagoda.service.telemetry import Telemetry

_FORWARDING = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", b"via")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def is_loopback(host: str) -> bool:
    """Whether a host name or address (without port) is this machine's loopback."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _headers(scope: Scope) -> dict[bytes, str]:
    return {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}


class Loopback:
    """Refuses (403) whatever does not come from this machine's own programs and pages."""

    def __init__(self, app: ASGIApp, origins: Iterable[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and (reason := self._reason(_headers(scope))):
            await refusal(403, reason, "forbidden")(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _reason(self, headers: dict[bytes, str]) -> str | None:
        host = headers.get(b"host", "")
        name = urlsplit(f"//{host}").hostname or ""
        if not is_loopback(name):
            return f"Without keys Pagoda answers only on loopback names such as localhost, not as {host!r}."
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin).netloc != host and origin not in self._origins:
            return f"Pages of {origin} may not call this service; server.cors_origins can allow them."
        if any(name in headers for name in _FORWARDING):
            return "Without keys Pagoda does not answer requests that a proxy passes on."
        return None


class Limits:
    """Refuses (413) bodies over the limit, whether their length is announced or not."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = _headers(scope).get(b"content-length", "0")
        if announced.isdigit() and int(announced) > self._limit:
            await self._refusal()(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise _BodyTooLarge
            return message

        async def guarded(message: Message) -> None:
            if seen <= self._limit:  # else: whatever the application makes of a broken-off body
                await send(message)

        with contextlib.suppress(_BodyTooLarge):  # it comes through where nobody below takes it for a failed read
            await self._app(scope, counted, guarded)
        if seen > self._limit:
            await self._refusal()(scope, receive, send)

    def _refusal(self) -> ASGIApp:
        return refusal(413, f"The body is larger than the limit of {self._limit} bytes.", "body_too_large")


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
    """Names each request (``X-Request-Id``, the client's own if it is a sane one) and counts it by endpoint."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = _headers(scope).get(b"x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        began, status = time.perf_counter(), 499

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, named)
        finally:
            route = scope.get("route")
            endpoint = getattr(route, "path", "other")
            self._telemetry.http_requests.labels(endpoint, str(status)).inc()
            self._telemetry.http_duration.labels(endpoint).observe(time.perf_counter() - began)
