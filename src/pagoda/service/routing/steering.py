"""All that keeps the pools going beside the requests: their watch, DNS, and an operator's word."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pagoda.core.errors import InvalidRequest
from pagoda.core.settings import Routing, Settings
from pagoda.model.catalog.entry import ModelEntry
from pagoda.service.routing.discovery import Discovery
from pagoda.service.routing.health import Watch
from pagoda.service.routing.replica import Replica
from pagoda.service.routing.roster import Roster
from pagoda.service.routing.router import Router
from pagoda.service.supervisor import Supervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOrder:
    """An operator's word on a replica."""

    action: Literal["add", "remove", "drain", "resume"]
    pool: str
    replica: str = ""
    values: Mapping[str, Any] | None = None
    """Of a replica that is added: its ``model``, ``url``, ``key_env``, ``weight``, ``zone``."""


class Steering:
    """The pools of a service process at work."""

    def __init__(self, roster: Roster, supervisor: Supervisor, settings: Routing) -> None:
        self._roster = roster
        self._router = roster.router
        self._watch = Watch(roster.router, supervisor, settings)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Make the pools and begin to watch them."""
        self._roster.open()
        pools = self._router.pools
        if pools:
            self._tasks.append(asyncio.create_task(self._watch.run()))
        for pool in pools.values():
            if pool.settings.dns:
                self._tasks.append(asyncio.create_task(Discovery(self._roster, pool).run()))

    async def close(self) -> None:
        """End what runs beside the requests."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._router.close()

    def carry_out(self, order: PoolOrder) -> dict[str, Any]:
        """Do as an operator says; gives the replica as it is then."""
        match order.action:
            case "add":
                replica = self._roster.register(order.pool, order.values or {})
            case "remove":
                replica = self._roster.unregister(order.pool, order.replica)
            case "drain" | "resume":
                replica = self._roster.drain(order.pool, order.replica, draining=order.action == "drain")
            case _:
                raise InvalidRequest(f"{order.action} is nothing that can be done with a replica.", param="action")
        return self._shown(replica)

    def pools(self) -> list[dict[str, Any]]:
        """All pools and replicas as they are now, as JSON."""
        return [
            {
                "name": pool.name,
                "task": pool.entry.task,
                "policy": pool.settings.policy,
                "interrupted": pool.settings.interrupted,
                "fallbacks": list(pool.settings.fallbacks),
                "capacity": pool.capacity(),
                "replicas": [self._shown(replica) for replica in pool.replicas.values()],
            }
            for pool in self._router.pools.values()
        ]

    def _shown(self, replica: Replica) -> dict[str, Any]:
        now = time.monotonic()
        source = replica.entry.source
        return {
            "id": replica.id,
            "model": getattr(source, "model", "") or getattr(source, "of", "") or replica.entry.id,
            "url": replica.url,
            "engine": replica.entry.engine,
            "origin": replica.origin,
            "weight": replica.load.weight,
            "zone": replica.zone,
            "state": self._router.state(replica),
            "circuit": replica.breaker.state(now),
            "usable": replica.usable(now),
            "reason": replica.objection(now),
            "outstanding": replica.load.outstanding,
            "capacity": replica.capacity,
            "attempts": dict(replica.outcomes),
        }


def open_steering(
    settings: Settings, router: Router, supervisor: Supervisor, refer: Callable[[str], ModelEntry]
) -> Steering:
    """The steering of the pools that settings name, with what was changed at run time; ``refer`` gives a member."""
    kept = settings.home / "pools.json"
    roster = Roster(router, settings.pools, settings.routing, refer, supervisor.room, kept)
    return Steering(roster, supervisor, settings.routing)
