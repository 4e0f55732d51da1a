"""Which replicas the pools have: those of the settings, those that were registered at run time, and their drains.

What is changed at run time is kept in ``pools.json`` in the home, so that it outlives a restart.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from pagoda.core.errors import ConfigError, Conflict, InvalidRequest, PagodaError
from pagoda.core.pool_settings import PoolSettings, ReplicaSettings, read_replica
from pagoda.core.settings import Routing
from pagoda.model.catalog.disk import stored, write_text
from pagoda.model.catalog.entry import Adapter, Copy, ModelEntry, Pool, RemoteAddress, Scripted, Task
from pagoda.model.engines import engine_kind
from pagoda.model.engines.contract import Room, fitted
from pagoda.service.routing.breaker import Breaker
from pagoda.service.routing.pool import ReplicaPool
from pagoda.service.routing.pulse import Pulse
from pagoda.service.routing.replica import Origin, Replica
from pagoda.service.routing.router import Router

logger = logging.getLogger(__name__)

Find = Callable[[str], ModelEntry]


def pool_entries(pools: Mapping[str, PoolSettings], find: Find, taken: set[str]) -> list[ModelEntry]:
    """What the catalog shows of the pools. Raises ``ConfigError`` with every mistake."""
    mistakes, entries = [], []
    for name, settings in pools.items():
        if name in taken:
            mistakes.append(f"pools.{name}: there is a model of that name; give the pool another")
            continue
        try:
            entries.append(_entry(settings, find))
        except PagodaError as error:
            mistakes.append(f"pools.{name}: {error.message.rstrip('.')}")
    known = taken | set(pools)
    for name, settings in pools.items():
        mistakes += [
            f"pools.{name}.fallbacks: there is no model {model!r}" for model in settings.fallbacks if model not in known
        ]
    if mistakes:
        raise ConfigError(mistakes)
    return entries


def _entry(settings: PoolSettings, find: Find) -> ModelEntry:
    """A pool speaks as the first of its models that this machine knows."""
    members = tuple(f"{each.model} {each.url}".strip() for each in settings.replicas)
    members += (f"{settings.dns_model or settings.name} {settings.dns}",) if settings.dns else ()
    own = [find(each.model) for each in settings.replicas if not each.url]
    source = Pool(members=members)
    task = cast("Task", settings.task or (own[0].task if own else "chat"))
    if not own:
        return ModelEntry(id=settings.name, task=task, engine="pool", source=source)
    return replace(
        own[0], id=settings.name, task=task, engine="pool", source=source, aliases=(), builtin=False, optional=False
    )


class Roster:
    """The replicas of all pools, and every change of them."""

    def __init__(
        self,
        router: Router,
        pools: Mapping[str, PoolSettings],
        settings: Routing,
        find: Find,
        room: Callable[[], Room],
        path: Path,
    ) -> None:
        self.router = router
        self._pools = pools
        self._settings = settings
        self._find = find
        self._room = room
        self._path = path

    def open(self) -> None:
        """Make the pools as settings say, then as they were changed at run time."""
        for settings in self._pools.values():
            pool = ReplicaPool(settings, self._find(settings.name), self._settings.retry_share, self.router.ready)
            self.router.add(pool)
            for declared in settings.replicas:
                for copy in range(declared.copies):
                    self._join(pool, declared, "settings", copy)
        for name, kept in self._read().items():
            if (changed := self.router.pools.get(name)) is not None:
                self._restore(changed, kept)

    def register(self, pool_name: str, values: Mapping[str, Any]) -> Replica:
        """A replica joins at run time. Raises ``InvalidRequest`` for what makes no sense, ``Conflict`` for a twin."""
        pool = self.router.pool(pool_name)
        declared, mistakes = read_replica(values, "the request")
        if mistakes:
            raise InvalidRequest(mistakes[0].removeprefix("replica.") + ".", param="replica")
        twins = [each for each in pool.replicas.values() if each.url and each.url == declared.url.rstrip("/")]
        if twins:
            raise Conflict(f"{pool.name} has {declared.url} already, as {twins[0].id}.", param="url")
        joined = [self._join(pool, declared, "api", copy) for copy in range(declared.copies)]
        self._write()
        return joined[0]

    def unregister(self, pool_name: str, replica_id: str) -> Replica:
        """A replica that was registered at run time leaves; what it has begun, it finishes."""
        pool = self.router.pool(pool_name)
        replica = pool.find(replica_id)
        if replica.origin != "api":
            raise Conflict(f"{replica_id} comes from {replica.origin}; drain it, or remove it there.", param="id")
        self.leave(pool, replica)
        self._write()
        return replica

    def drain(self, pool_name: str, replica_id: str, *, draining: bool) -> Replica:
        """A replica takes nothing new and finishes what it has, or takes requests again."""
        pool = self.router.pool(pool_name)
        replica = pool.find(replica_id)
        replica.draining = draining
        pool.notice()
        self._write()
        return replica

    def join(self, pool: ReplicaPool, declared: ReplicaSettings, origin: Origin) -> Replica:
        """A replica joins; nothing is written."""
        return self._join(pool, declared, origin, 0)

    def leave(self, pool: ReplicaPool, replica: Replica) -> None:
        """A replica leaves; nothing is written."""
        replica.draining = True
        del pool.replicas[replica.id]
        pool.notice()

    def _join(self, pool: ReplicaPool, declared: ReplicaSettings, origin: Origin, copy: int) -> Replica:
        entry, name = self._engine(pool, declared, copy)
        if name in pool.replicas:
            name = next(f"{name}-{number}" for number in range(2, 10_000) if f"{name}-{number}" not in pool.replicas)
            entry = replace(entry, id=f"{pool.name}@{name}") if declared.url else self._twin(entry, name)
        settings = self._settings
        thresholds = {"death": 1, "timeout": settings.timeouts, "failure": settings.failures}
        replica = Replica(
            id=name,
            entry=entry,
            weight=declared.weight,
            zone=declared.zone,
            origin=origin,
            breaker=Breaker(thresholds, settings.open_seconds),  # type: ignore[arg-type]
            pulse=Pulse(settings.silence_seconds, settings.misses, time.monotonic()),
        )
        kind = engine_kind(entry.engine)
        replica.capacity = kind.capacity(entry, fitted(self._room(), kind))
        pool.add(replica)
        return replica

    def _engine(self, pool: ReplicaPool, declared: ReplicaSettings, copy: int) -> tuple[ModelEntry, str]:
        """The entry that a replica's engine runs, and the replica's name."""
        if declared.url:
            name = urlsplit(declared.url).netloc
            source = RemoteAddress(url=declared.url.rstrip("/"), model=declared.model, key_env=declared.key_env)
            return replace(pool.entry, id=f"{pool.name}@{name}", engine="remote", source=source), name
        entry = self._find(declared.model)
        if entry.task != pool.entry.task:
            raise InvalidRequest(
                f"{entry.id} is for {entry.task}; {pool.name} is for {pool.entry.task}.", param="model"
            )
        if isinstance(entry.source, Pool):
            raise InvalidRequest(f"{entry.id} is a pool; name it among the fallbacks instead.", param="model")
        return (
            (entry, entry.id) if not copy else (self._twin(entry, f"{entry.id}-{copy + 1}"), f"{entry.id}-{copy + 1}")
        )

    def _twin(self, entry: ModelEntry, name: str) -> ModelEntry:
        """The same model for an engine of its own."""
        if isinstance(entry.source, Adapter):
            raise InvalidRequest(f"{entry.id} is an adapter, whose base has one engine.", param="copies")
        source = entry.source if isinstance(entry.source, Scripted | RemoteAddress | Copy) else Copy(of=entry.id)
        return replace(entry, id=name, source=source)

    # -- kept over a restart ------------------------------------------------------------------------------------------

    def _read(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))["pools"]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.error(
                "%s cannot be read (%s); replicas registered before are unknown until it is mended.", self._path, error
            )
            return {}
        return found

    def _restore(self, pool: ReplicaPool, kept: Mapping[str, Any]) -> None:
        for values in kept.get("replicas", ()):
            declared, mistakes = read_replica(values, str(self._path))
            try:
                if mistakes:
                    raise InvalidRequest(mistakes[0])
                self._join(pool, declared, "api", 0)
            except PagodaError as error:
                logger.error("a replica of %s was not taken from %s: %s", pool.name, self._path, error.message)
        for replica_id in kept.get("draining", ()):
            if replica_id in pool.replicas:
                pool.replicas[replica_id].draining = True

    def _write(self) -> None:
        content = {
            name: {
                "replicas": [_declared(each) for each in pool.replicas.values() if each.origin == "api"],
                "draining": [each.id for each in pool.replicas.values() if each.draining],
            }
            for name, pool in self.router.pools.items()
        }
        with stored("The list of replicas", self._path.parent):
            write_text(self._path, json.dumps({"pools": content}, ensure_ascii=False, indent=1))


def _declared(replica: Replica) -> dict[str, Any]:
    source = replica.entry.source
    here = source.of if isinstance(source, Copy) else replica.entry.id
    remote = isinstance(source, RemoteAddress)
    return asdict(
        ReplicaSettings(
            model=source.model if isinstance(source, RemoteAddress) else here,
            url=source.url if isinstance(source, RemoteAddress) else "",
            key_env=source.key_env if remote and isinstance(source, RemoteAddress) else "",
            weight=replica.load.weight,
            zone=replica.zone,
        )
    )
