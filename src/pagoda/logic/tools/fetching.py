"""HTTP for tools: only to hosts that the operator allows, and never to a private address unless it was named as such.

An allowed host is resolved here and every address checked, and the connection is made to exactly those: a name that
changes its mind afterwards gains nothing. Redirects are followed only to allowed hosts.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult

from pagoda.core.errors import ToolError
from pagoda.core.types import Json

_MOST_BYTES = 2 * 1024 * 1024
_MOST_REDIRECTS = 3
_CONNECT_SECONDS = 10.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class _GuardedResolver(AbstractResolver):
    """Names as the system resolves them, without private addresses for hosts that may not have them."""

    def __init__(self, private: Collection[str]) -> None:
        self._private = private
        self._system = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host. Raises ``ToolError`` where one is private."""
        found = await self._system.resolve(host, port, family)
        for each in found:
            if not is_public(each["host"]) and host not in self._private:
                raise ToolError(f"{host} is the private address {each['host']}")
        return found

    async def close(self) -> None:
        """Nothing is held."""


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and (inner := found.ipv4_mapped or found.sixtofour) is not None:
        return is_public(str(inner))
    return found.is_global and not found.is_multicast


class Web:
    """Requests to allowed hosts. ``hosts`` are names, ``*.example.org`` for all below one; ``private`` are names or
    addresses that are allowed although they are not public (an operator's own servers)."""

    def __init__(self, hosts: Collection[str], private: Collection[str] = ()) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._private = frozenset(host.lower() for host in private)

    async def get(self, url: str, parameters: Mapping[str, str] | None = None) -> str:
        """The text of a page, up to 2 MiB. Raises ``ToolError``."""
        return (await self.ask("GET", url, parameters))[1]

    async def get_json(self, url: str, parameters: Mapping[str, str]) -> Json:
        """A JSON answer. Raises ``ToolError``."""
        text = await self.get(url, parameters)
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise ToolError(f"{url} answered something that is not JSON") from error

    async def ask(
        self,
        method: str,
        url: str,
        parameters: Mapping[str, str] | None = None,
        *,
        body: Json = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:
        """Status and text of an answer; only GET follows redirects. Raises ``ToolError``, for status 400 on too."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        connector = aiohttp.TCPConnector(resolver=_GuardedResolver(self._private), use_dns_cache=False)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session:
            for _ in range(_MOST_REDIRECTS + 1):
                self.check(url)
                options: dict[str, Any] = {"params": parameters, "headers": headers, "allow_redirects": False}
                if body is not None:
                    options["json"] = body
                try:
                    async with session.request(method, url, **options) as response:
                        if method == "GET" and response.status in _REDIRECTS and "Location" in response.headers:
                            url, parameters = urljoin(url, response.headers["Location"]), None
                            continue
                        return await _answer(response)
                except (aiohttp.ClientError, OSError, ValueError) as error:
                    raise ToolError(f"{url[:200]} cannot be fetched: {error}", retryable=True) from error
        raise ToolError(f"{url[:200]} was sent elsewhere more than {_MOST_REDIRECTS} times")

    def check(self, url: str) -> None:
        """Refuse what is not allowed. Raises ``ToolError``."""
        try:
            parts = urlsplit(url)
            host, _ = (parts.hostname or "").lower(), parts.port
        except ValueError as error:
            raise ToolError(f"{url[:200]!r} is no address") from error
        if parts.scheme not in ("http", "https") or not host:
            raise ToolError(f"{url[:200]!r} is no address that begins with http:// or https://")
        if parts.username is not None or parts.password is not None:
            raise ToolError("an address with a name or password in it is not fetched")
        above = host.split(".", 1)[-1]
        if host not in self._hosts and f"*.{above}" not in self._hosts and host not in self._private:
            raise ToolError(f"{host} is not among the hosts that may be asked (tools.hosts)")
        if _is_address(host) and not is_public(host) and host not in self._private:
            raise ToolError(f"{host} is a private address")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _answer(response: aiohttp.ClientResponse) -> tuple[int, str]:
    raw = b""
    async for block in response.content.iter_any():
        raw += block
        if len(raw) > _MOST_BYTES:
            raise ToolError(f"the answer is longer than {_MOST_BYTES} bytes")
    try:
        text = raw.decode(response.charset or "utf-8", "replace")
    except LookupError:
        text = raw.decode("utf-8", "replace")
    if response.status >= 400:
        said = " ".join(text.split())[:300]
        raise ToolError(f"the server answered with status {response.status}: {said}", retryable=response.status >= 500)
    return response.status, text
