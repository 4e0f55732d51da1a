"""Replicas found by DNS: every address that a name has, looked up again now and then."""

from __future__ import annotations

import asyncio
import logging
import socket
from urllib.parse import urlsplit, urlunsplit

from pagoda.core.pool_settings import PoolSettings, ReplicaSettings
from pagoda.core.recurring import recur
from pagoda.service.routing.pool import ReplicaPool
from pagoda.service.routing.roster import Roster

logger = logging.getLogger(__name__)


class Discovery:
    """Follows the DNS name of one pool. A failed look-up changes nothing: DNS may be down, they are not."""

    def __init__(self, roster: Roster, pool: ReplicaPool) -> None:
        self._roster = roster
        self._pool = pool

    async def run(self) -> None:
        """Follow it until cancelled."""
        await recur(self.follow, self._pool.settings.dns_seconds, at_once=True)

    async def follow(self) -> None:
        """Look the name up once; addresses that are new join, those that are gone leave and finish what they have."""
        settings = self._pool.settings
        try:
            wanted = await addresses(settings.dns)
        except OSError as error:
            logger.warning("%s of pool %s cannot be looked up: %s", settings.dns, self._pool.name, error)
            return
        there = {each.url: each for each in self._pool.replicas.values() if each.origin == "dns"}
        for url in wanted:
            if url not in there:
                self._roster.join(self._pool, _declared(settings, url), "dns")
        for url, replica in there.items():
            if url not in wanted:
                self._roster.leave(self._pool, replica)


def _declared(settings: PoolSettings, url: str) -> ReplicaSettings:
    return ReplicaSettings(model=settings.dns_model or settings.name, url=url, key_env=settings.dns_key_env)


async def addresses(url: str) -> list[str]:
    """The address with each of its name's numbers in place of the name, in a stable order. Raises ``OSError``."""
    parts = urlsplit(url)
    port = parts.port or 80
    found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    hosts = sorted({str(address[0]) for *_, address in found})
    return [
        urlunsplit(parts._replace(netloc=f"[{host}]:{port}" if ":" in host else f"{host}:{port}")).rstrip("/")
        for host in hosts
    ]
