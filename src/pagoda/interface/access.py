"""Who may come in: the scope that each route declares, and the key that a request carries for it.

A route says ``@needs("inference")`` or ``@public`` below its decorator; ``context.Route`` refuses to be made without.
The key is looked at before anything of the request's body is read.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from fastapi import Request

from pagoda.core.errors import Forbidden, InvalidRequest, NotFound, Overloaded, StoreError, Unauthenticated
from pagoda.logic.inference.joined import INTERNAL_KEY_HEADER
from pagoda.service.keys.key import Key, Scope
from pagoda.service.keys.ring import KeyRing
from pagoda.service.keys.slowdown import Slowdown
from pagoda.service.telemetry import Telemetry

if TYPE_CHECKING:
    from pagoda.service.keys.book import Actor

SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
"""How the OpenAPI document tells of keys."""

F = TypeVar("F", bound=Callable[..., Any])

Need: TypeAlias = Scope | Literal["public", "internal"]
"""``internal``: Pagoda's own processes, by the key in ``service.json``; for others there is nothing here."""

_MARK = "__pagoda_need__"
_OPENS = b"pk-"
_LOCAL = "local"
_SLOWED_AFTER = 6
_AUDITED = ("operate", "admin")

KEY = "pagoda.key"
"""Where a request's scope holds the key that it came with, if any."""


def needs(need: Need) -> Callable[[F], F]:
    """Declare what a route's caller must be allowed to."""

    def mark(endpoint: F) -> F:
        setattr(endpoint, _MARK, need)
        return endpoint

    return mark


public = needs("public")
"""Declare that anybody may call a route."""


def need_of(endpoint: Callable[..., Any]) -> Need | None:
    """What a route declares; ``None`` where it was forgotten."""
    need: Need | None = getattr(endpoint, _MARK, None)
    return need


def key_of(request: Request) -> Key | None:
    """The key that a request came with; ``None`` for this machine's own user."""
    key: Key | None = request.scope.get(KEY)
    return key


def tenant_of(request: Request) -> str:
    """The team that asks; files, batches and cached answers are kept apart by it."""
    key = key_of(request)
    return _LOCAL if key is None else key.team


def author_of(request: Request) -> str:
    """Who acts, as records name them: the key's id."""
    key = key_of(request)
    return _LOCAL if key is None else key.id


def actor_of(request: Request) -> Actor:
    """Who acts, and from where, for the audit log."""
    from pagoda.service.keys.book import Actor  # noqa: PLC0415  (it brings the database)

    access: Access = request.app.state.access
    return Actor(author_of(request), access.address(request))


def models_of(request: Request) -> tuple[str, ...] | None:
    """Ids of the models that a request may name; ``None``: all."""
    key = key_of(request)
    return None if key is None else key.models


class Access:
    """The door of one process: keys, slowed-down guessing, and the address that counts."""

    def __init__(self, keys: KeyRing, proxies: Sequence[str], telemetry: Telemetry) -> None:
        self._keys = keys
        self._proxies = networks(proxies)
        self._telemetry = telemetry
        self._slowdown = Slowdown()

    async def admit(self, request: Request, need: Need, internal_key: str) -> None:
        """Let a request in with its key in its scope. Raises ``Unauthenticated``, ``Forbidden``, ``Overloaded``."""
        if need == "public":
            return
        if need == "internal":
            given = request.headers.get(INTERNAL_KEY_HEADER, "")
            if not internal_key or not secrets.compare_digest(given.encode(), internal_key.encode()):
                raise NotFound(f"There is no {request.url.path} here.")
            return
        key = await self.identify(request)
        if key is None:
            if self._keys.required:
                raise self._nobody()
            return
        request.scope[KEY] = key
        if not key.may(need):
            self._telemetry.access_refusals.labels("scope").inc()
            self.record(request, need, "refused")
            raise Forbidden(f"This needs a key with the scope {need}; the key {key.name!r} lacks it.", code="scope")

    async def identify(self, request: Request) -> Key | None:
        """The key that a request carries; ``None`` where it carries none. Raises for one that opens nothing."""
        secret = secret_in(request.scope["headers"])
        if secret is None:
            return None
        key = self._keys.known(secret)
        if key is not None:
            return key
        if not self._keys.required and not secret.startswith(_OPENS):
            return None  # clients that cannot do without a key send any word to a service that wants none
        address = self.address(request)
        if (pause := self._slowdown.wait(address)) > 0:
            self._telemetry.access_refusals.labels("slowed").inc()
            raise Overloaded(
                "Too many wrong keys came from this address; wait before you try the next one.",
                code="too_many_attempts",
                retry_after=pause,
            )
        try:
            return await self._keys.by_secret(secret)
        except Unauthenticated as error:
            self._telemetry.access_refusals.labels(error.code).inc()
            if self._slowdown.failed(address) == _SLOWED_AFTER:
                self._note("-", address, "login", "wrong keys", "slowed")
            raise

    def record(self, request: Request, need: Need, outcome: str) -> None:
        """Have the audit log told of what a key did, or tried, with the service; questions alone are not told."""
        key = key_of(request)
        if key is None or need not in _AUDITED or request.method == "GET":
            return
        subject = ",".join(str(value) for value in request.path_params.values())
        self._note(key.id, self.address(request), f"{request.method} {request.scope['route'].path}", subject, outcome)

    def address(self, request: Request) -> str:
        """The client's address: the peer's, or what a trusted proxy says."""
        client = request.scope.get("client")
        peer = client[0] if client else ""
        if not self._proxies or not _within(peer, self._proxies):
            return peer
        told = ",".join(
            value.decode("latin-1") for name, value in request.scope["headers"] if name == b"x-forwarded-for"
        )
        for hop in reversed([part.strip() for part in told.split(",") if part.strip()]):
            if not _within(hop, self._proxies):
                return hop[:64]
            peer = hop
        return peer

    def _nobody(self) -> Unauthenticated | StoreError:
        if not self._keys.certain:
            return StoreError(
                "Whether keys are needed cannot be looked up, since the database does not answer; try again.",
                code="keys_unavailable",
                retryable=True,
            )
        self._telemetry.access_refusals.labels("missing_api_key").inc()
        return Unauthenticated(
            "This service needs an API key; send it as Authorization: Bearer pk-....", code="missing_api_key"
        )

    def _note(self, who: str, address: str, action: str, subject: str, outcome: str) -> None:
        from pagoda.service.keys.book import Actor, audit_row  # noqa: PLC0415  (it brings the database)

        self._keys.note(audit_row(Actor(who, address), action, subject, outcome))


def secret_in(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The secret of ``Authorization: Bearer`` or, as Anthropic's clients send it, ``x-api-key``."""
    found = None
    for name, value in headers:
        if name == b"authorization":
            scheme, _, rest = value.partition(b" ")
            if scheme.lower() == b"bearer" and (rest := rest.strip()):
                return rest
        elif name == b"x-api-key" and (value := value.strip()):
            found = value
    return found


_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(proxies: Iterable[str]) -> tuple[_Network, ...]:
    """Addresses and networks by their names. Raises ``InvalidRequest``."""
    try:
        return tuple(ipaddress.ip_network(proxy, strict=False) for proxy in proxies)
    except ValueError as error:
        raise InvalidRequest(
            f"server.trusted_proxies must be addresses or networks such as 10.0.0.0/8: {error}.",
            param="server.trusted_proxies",
        ) from error


def _within(address: str, proxies: Sequence[_Network]) -> bool:
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(known in proxy for proxy in proxies)
