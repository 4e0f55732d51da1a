"""A client of the Hugging Face hub's protocol: what a repository holds, and its files, resumed and checked.

Not ``huggingface_hub``: that library takes proxy and certificates for the whole process from its environment, moves
some files past both through a second transport, and leaves the digest unchecked (docs/decisions/0003).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pagoda.core.errors import ConfigError, Forbidden, NotFound, Overloaded, PagodaError, StoreError, Unavailable
from pagoda.core.ports import Progress
from pagoda.model.catalog.disk import CHUNK
from pagoda.model.catalog.network import Network
from pagoda.model.catalog.reference import HubReference

REDIRECTS = 10
ATTEMPTS = 5
SILENCE_SECONDS = 30.0
"""Longest silence of the hub before the connection counts as cut."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository: large ones are known by SHA-256, small ones by git's own digest of a blob."""

    name: str
    size: int
    sha256: str = ""
    blob: str = ""

    @property
    def digest(self) -> str:
        """Whichever digest is known."""
        return self.sha256 or self.blob


@dataclass(frozen=True, slots=True)
class HubRepository:
    """A repository at one commit."""

    name: str
    commit: str
    files: tuple[HubFile, ...]


class Hub:
    """A hub or a mirror of it. Every call may raise ``Unavailable``, and what the hub refused in its own terms."""

    def __init__(self, network: Network, *, pause: Callable[[float], None] | None = None) -> None:
        self._network = network
        self._pause = pause or time.sleep
        self._opener = urllib.request.build_opener(*_handlers(network))

    def look_up(self, reference: HubReference) -> HubRepository:
        """What the repository holds at the revision."""
        revision = urllib.parse.quote(reference.revision, safe="")
        address = f"{self._network.hub_url}/api/models/{reference.repository}/revision/{revision}?blobs=true"
        about = self._retried(lambda: self._json(address, reference), reference)
        try:
            files = tuple(_file(item) for item in about["siblings"])
            return HubRepository(reference.repository, about["sha"], files)
        except (KeyError, TypeError) as error:
            message = f"{self._network.hub_url} does not answer as a Hugging Face hub does; check models.hub_url."
            raise Unavailable(message, code="not_a_hub", retryable=False) from error

    def measured(self, repository: HubRepository, file: HubFile) -> HubFile:
        """The file with its size and digest, asked for singly when a mirror's listing leaves them out."""
        if file.digest:
            return file
        address, reference = self._place(repository, file)
        headers = self._retried(lambda: self._first_headers(address, reference), reference)
        digest = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").removeprefix("W/").strip('"')
        size = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest) or not size.isdecimal():
            message = f"{self._network.hub_url} does not say the size and digest of {reference}; use another mirror."
            raise Unavailable(message, code="not_a_hub", retryable=False)
        large = len(digest) == 64
        return HubFile(file.name, int(size), digest if large else "", "" if large else digest)

    def fetch(self, repository: HubRepository, file: HubFile, part: Path, progress: Progress) -> None:
        """Bring the file to ``part``, going on from what is there already; the content is checked at the end."""
        address, reference = self._place(repository, file)
        part.parent.mkdir(parents=True, exist_ok=True)
        self._retried(lambda: self._receive(address, reference, file, part, progress), reference, part)
        if part.stat().st_size != file.size or not matches(part, file, progress):
            part.unlink()
            message = f"{reference} from {self._network.hub_url} differs from what the hub announced; pull it again."
            raise StoreError(message, code="wrong_content")

    def _receive(self, address: str, reference: HubReference, file: HubFile, part: Path, progress: Progress) -> None:
        have = part.stat().st_size if part.exists() else 0
        if have > file.size:
            part.unlink()
            have = 0
        if have == file.size and part.exists():
            return
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with self._open(address, reference, headers) as answer:
            resumed = answer.status == http.client.PARTIAL_CONTENT and _begins_at(answer, have)
            done = have if resumed else 0
            with part.open("ab" if resumed else "wb") as target:
                progress("download", done, file.size)
                while chunk := answer.read(CHUNK):
                    target.write(chunk)
                    done += len(chunk)
                    progress("download", done, file.size)
                    if done > file.size:
                        return  # more than announced; the check that follows refuses it
        if done < file.size:
            raise http.client.IncompleteRead(b"", file.size - done)

    def _place(self, repository: HubRepository, file: HubFile) -> tuple[str, HubReference]:
        name = urllib.parse.quote(file.name, safe="/")
        address = f"{self._network.hub_url}/{repository.name}/resolve/{repository.commit}/{name}"
        return address, HubReference(repository.name, repository.commit, file.name)

    def _first_headers(self, address: str, reference: HubReference) -> Any:
        """Headers of the first answer that knows the file, which is the hub's own and not its storage server's."""
        with self._open(address, reference, {"Accept-Encoding": "identity"}, "HEAD", "X-Linked-Etag") as answer:
            return answer.headers

    def _json(self, address: str, reference: HubReference) -> Any:
        with self._open(address, reference, {"Accept": "application/json"}) as answer:
            return json.loads(answer.read())

    def _open(
        self, address: str, reference: HubReference, headers: dict[str, str], method: str = "GET", until: str = ""
    ) -> Any:
        """Follow redirects by hand, so that the token goes to the hub alone and never to its storage servers.

        With ``until``, a redirect that carries that header is itself the answer.
        """
        home = urllib.parse.urlsplit(address)
        if home.scheme not in ("http", "https"):
            raise ConfigError([f"models.hub_url = {self._network.hub_url!r}: must begin with http:// or https://"])
        for _ in range(REDIRECTS):
            request = urllib.request.Request(address, headers={"User-Agent": "pagoda-llm", **headers}, method=method)  # noqa: S310
            here = urllib.parse.urlsplit(address)
            if self._network.hub_token and (here.scheme, here.netloc) == (home.scheme, home.netloc):
                request.add_header("Authorization", f"Bearer {self._network.hub_token.reveal()}")
            try:
                return self._opener.open(request, timeout=SILENCE_SECONDS)
            except urllib.error.HTTPError as error:
                redirected = error.code in (301, 302, 303, 307, 308)
                if redirected and until and until in error.headers:
                    return error
                with error:
                    if not redirected:
                        raise self._refusal(error, reference) from error
                    address = urllib.parse.urljoin(address, error.headers.get("Location", ""))
                if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
                    break
        raise Unavailable(f"{reference} cannot be fetched: the hub redirects without end.", code="not_a_hub")

    def _refusal(self, error: urllib.error.HTTPError, reference: HubReference) -> PagodaError:
        code = error.headers.get("X-Error-Code", "")
        where = f"{reference} on {self._network.hub_url}"
        if code == "GatedRepo" or (error.code in (401, 403) and code != "RepoNotFound"):
            return Forbidden(
                f"{where} is private or gated; accept its terms on its page and set models.hub_token "
                "(PAGODA_MODELS_HUB_TOKEN) to a token that may read it.",
                code="gated",
            )
        if error.code in (401, 404):
            what = {"RevisionNotFound": "revision", "EntryNotFound": "file"}.get(code, "repository or file")
            return NotFound(f"There is no such {what}: {where}; check the name, and models.hub_token if it is private.")
        if error.code == http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            return Unavailable("The proxy asks for a user name and password; put them into models.proxy.", code="proxy")
        if error.code == http.HTTPStatus.TOO_MANY_REQUESTS:
            return Overloaded(f"{self._network.hub_url} asks to slow down; try again later.")
        retryable = error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR
        message = f"{where} cannot be fetched: the hub answers {error.code} {error.reason}; try again later."
        return Unavailable(message, code="hub_error", retryable=retryable)

    def _retried(self, attempt: Callable[[], Any], reference: HubReference, part: Path | None = None) -> Any:
        """Try again after a cut; tries that brought bytes do not count."""
        left = ATTEMPTS
        while True:
            before = part.stat().st_size if part and part.exists() else 0
            try:
                return attempt()
            except Unavailable as error:
                left -= 1
                if not error.retryable or not left:
                    raise
            except (
                urllib.error.URLError,
                http.client.HTTPException,
                TimeoutError,
                ConnectionError,
                ssl.SSLError,
            ) as error:
                left = left - 1 if not part or not part.exists() or part.stat().st_size <= before else ATTEMPTS
                if not left or not _may_pass(error):
                    raise self._unreachable(error, reference) from error
            except ValueError as error:
                message = f"{self._network.hub_url} does not answer as a Hugging Face hub does; check models.hub_url."
                raise Unavailable(message, code="not_a_hub", retryable=False) from error
            self._pause(0.5 * 2 ** (ATTEMPTS - left))

    def _unreachable(self, error: Exception, reference: HubReference) -> Unavailable:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            return Unavailable(
                f"The certificate of {self._network.hub_url} is not trusted ({reason.verify_message}); set "
                "models.ca_bundle to the PEM file of your certificate authority.",
                code="untrusted_certificate",
                retryable=False,
            )
        return Unavailable(
            f"{reference} cannot be fetched: {self._network.hub_url} is not reached ({reason}). Check the network, "
            "models.proxy and models.hub_url, then pull again (it goes on where it stopped), or bring the files by "
            "hand with `pagoda models import`.",
            code="no_network",
        )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to ``Hub._open``."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _handlers(network: Network) -> list[urllib.request.BaseHandler]:
    context = ssl.create_default_context()
    if network.ca_bundle:
        path = Path(network.ca_bundle).expanduser()
        try:
            context.load_verify_locations(cafile=path)
        except (OSError, ssl.SSLError) as error:
            mistake = f"models.ca_bundle = {network.ca_bundle!r}: must be a PEM file of certificates ({error})"
            raise ConfigError([mistake]) from error
    handlers: list[urllib.request.BaseHandler] = [_NoRedirects(), urllib.request.HTTPSHandler(context=context)]
    if network.proxy:
        handlers.append(urllib.request.ProxyHandler({"http": network.proxy, "https": network.proxy}))
    return handlers


def _may_pass(error: Exception) -> bool:
    """Whether trying again may help: not with an untrusted certificate, and not while nothing answers at all."""
    if not isinstance(error, urllib.error.URLError):
        return True
    return isinstance(error.reason, ConnectionResetError | TimeoutError | ssl.SSLEOFError)


def _file(item: Any) -> HubFile:
    lfs = item.get("lfs") or {}
    name = item["rfilename"]
    if PurePosixPath(name).is_absolute() or ".." in name.split("/") or "\\" in name:
        raise StoreError(f"The hub names a file {name!r}, which would lie outside its folder; nothing was fetched.")
    return HubFile(name, int(lfs.get("size") or item.get("size") or 0), lfs.get("sha256", ""), item.get("blobId", ""))


def _begins_at(answer: http.client.HTTPResponse, place: int) -> bool:
    return (answer.headers.get("Content-Range") or "").startswith(f"bytes {place}-")


def matches(path: Path, file: HubFile, progress: Progress) -> bool:
    """Whether a file on disk is that file of the hub, by its digest."""
    total = path.stat().st_size
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % total, usedforsecurity=False)
    with path.open("rb") as opened:
        _feed(opened, digest, total, progress)
    return digest.hexdigest() == file.digest


def _feed(opened: IO[bytes], digest: Any, total: int, progress: Progress) -> None:
    done = 0
    while chunk := opened.read(CHUNK):
        digest.update(chunk)
        done += len(chunk)
        progress("check", done, total)
