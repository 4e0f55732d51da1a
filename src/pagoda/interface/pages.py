"""The pages people open: chat at ``/``, documents at ``/knowledge``, the API reference at ``/docs``.

Everything comes from this origin, so the pages work without internet and under a strict Content-Security-Policy.
Every address inside them is relative, so they also work below a URL sub-path. No page logic lives here: the pages are
plain files in ``web/``, and talk to the same HTTP API as any other client.

All pages name their files below ``static/<version>/``, where the version is a digest of all files: a browser may
keep such a file for ever, and an upgrade cannot mix old modules with new ones.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from fastapi import APIRouter, Request, Response

from pagoda.core.errors import NotFound
from pagoda.interface.access import public

WEB = Path(__file__).parent / "web"

MEDIA_TYPES: Mapping[str, str] = MappingProxyType(
    {
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".svg": "image/svg+xml",
        ".txt": "text/plain; charset=utf-8",
    }
)
"""Named here, since the system's own table differs between machines and a module with a wrong type does not load."""

_POLICY: Mapping[str, str] = MappingProxyType(
    {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
)

_MODEL_POLICY: Mapping[str, str] = MappingProxyType(
    {**_POLICY, "img-src": "'self'", "require-trusted-types-for": "'script'", "trusted-types": "dompurify"}
)
"""A page that shows what a model wrote: markup can only enter it through DOMPurify, and no image is fetched."""

_SAFETY: Mapping[str, str] = MappingProxyType(
    {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    }
)

_SMALLEST_COMPRESSED = 1024
_ONE_YEAR = "public, max-age=31536000, immutable"
_REVALIDATE = "no-cache"


@dataclass(frozen=True)
class Asset:
    """The bytes of one file with what HTTP says about them."""

    body: bytes
    media_type: str
    policy: Mapping[str, str] = field(default_factory=lambda: _POLICY)

    @cached_property
    def etag(self) -> str:
        """A weak tag of the content; weak, because compressed and plain bytes share it."""
        return f'W/"{hashlib.sha256(self.body).hexdigest()[:20]}"'

    @cached_property
    def compressed(self) -> bytes:
        """The bytes as gzip, computed once."""
        return gzip.compress(self.body, 6, mtime=0)

    def respond(self, request: Request, cache: str) -> Response:
        """The answer to ``request``: the bytes, compressed if the client can read that, or 304."""
        headers = {
            **_SAFETY,
            "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in self.policy.items()),
            "Cache-Control": cache,
            "ETag": self.etag,
            "Vary": "Accept-Encoding",
        }
        known = (tag.strip() for tag in request.headers.get("if-none-match", "").split(","))
        if any(tag == "*" or tag.removeprefix("W/") == self.etag.removeprefix("W/") for tag in known):
            return Response(status_code=304, headers=headers)
        body = self.body
        if len(body) >= _SMALLEST_COMPRESSED and _accepts_gzip(request.headers.get("accept-encoding", "")):
            body = self.compressed
            headers["Content-Encoding"] = "gzip"
        return Response(body, media_type=self.media_type, headers=headers)


class Shelf:
    """All files of the pages, read once: a name that is not among them cannot reach the disk."""

    def __init__(self, directory: Path) -> None:
        files = dict(_read_files(directory))
        digest = hashlib.sha256()
        for name, body in sorted(files.items()):
            digest.update(name.encode() + b"\0" + hashlib.sha256(body).digest())
        self.version = digest.hexdigest()[:12]
        self._assets = {name: Asset(body, MEDIA_TYPES[Path(name).suffix]) for name, body in files.items()}

    def names(self) -> tuple[str, ...]:
        """The files there are."""
        return tuple(sorted(self._assets))

    def file(self, name: str) -> Asset:
        """The file called ``name``, a path relative to ``web/``."""
        asset = self._assets.get(name)
        if asset is None:
            raise NotFound(f"There is no page file {name[:200]!r}; open the page again to get its current files.")
        return asset

    def page(self, name: str, policy: Mapping[str, str], **values: str) -> Asset:
        """A page with ``{{static}}`` and the further ``values`` filled in."""
        values["static"] = f"static/{self.version}"
        text = self.file(name).body.decode()
        filled = re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)
        return Asset(filled.encode(), MEDIA_TYPES[".html"], policy)


def pages_router(directory: Path = WEB) -> APIRouter:
    """The routes of the pages. Mount them at the root of the app, whose own ``docs_url`` must be off."""
    shelf = Shelf(directory)
    chat = shelf.page("index.html", _MODEL_POLICY)
    knowledge = shelf.page("knowledge.html", _MODEL_POLICY)
    reference = shelf.page("docs.html", _POLICY)
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    @public
    def show_chat(request: Request) -> Response:
        return chat.respond(request, _REVALIDATE)

    @router.api_route("/knowledge", methods=["GET", "HEAD"])
    @public
    def show_knowledge(request: Request) -> Response:
        return knowledge.respond(request, _REVALIDATE)

    @router.api_route("/docs", methods=["GET", "HEAD"])
    @public
    def show_reference(request: Request) -> Response:
        return reference.respond(request, _REVALIDATE)

    @router.api_route("/favicon.ico", methods=["GET", "HEAD"])
    @public
    def show_icon(request: Request) -> Response:
        return shelf.file("icons/pagoda.svg").respond(request, _REVALIDATE)

    @router.api_route("/static/{name:path}", methods=["GET", "HEAD"])
    @public
    def show_file(request: Request, name: str) -> Response:
        version, _, rest = name.partition("/")
        if version == shelf.version:
            return shelf.file(rest).respond(request, _ONE_YEAR)
        return shelf.file(name).respond(request, _REVALIDATE)

    return router


def _read_files(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Every file with a known ending; licences without one are for people who read the package."""
    for path in directory.rglob("*"):
        if path.suffix in MEDIA_TYPES and path.is_file():
            yield path.relative_to(directory).as_posix(), path.read_bytes()


def _accepts_gzip(header: str) -> bool:
    for part in header.split(","):
        coding, _, weight = part.replace(" ", "").partition(";")
        if coding.lower() in ("gzip", "*"):
            return re.fullmatch(r"q=0(\.0*)?", weight, re.IGNORECASE) is None
    return False
