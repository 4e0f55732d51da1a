"""The platform: everything of one process wired together from settings. The only place where that happens.

The first process of a ``PAGODA_HOME`` owns the engines; further ones join it over loopback and serve the same door.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pagoda.application.joining import find_or_start, hold_lease
from pagoda.application.registry import run_kinds
from pagoda.core.ports import Inference
from pagoda.core.runs import RunRegistry, Runs
from pagoda.core.settings import Settings
from pagoda.interface.context import ModelStatus
from pagoda.logic.inference.door import Door
from pagoda.logic.inference.joined import JoinedDoor
from pagoda.model.catalog.entry import ModelEntry
from pagoda.model.catalog.opening import open_shelf
from pagoda.model.catalog.store import FileState
from pagoda.service.dispatch import ModelService
from pagoda.service.presence import Notice, Presence
from pagoda.service.supervisor import StartGround, Supervisor
from pagoda.service.telemetry import Telemetry

logger = logging.getLogger(__name__)


class Platform:
    """What stands behind the interface of this process."""

    inference: Inference

    def __init__(self, settings: Settings, environment: Mapping[str, str], *, embedded: bool = False) -> None:
        self.settings = settings
        self.telemetry = Telemetry()
        self.shelf = open_shelf(settings)
        self.runs = Runs(settings, RunRegistry(run_kinds()))
        self.internal_key = ""
        self.closing = asyncio.Event()
        self.leases = 0
        self.left = asyncio.Event()
        """Set whenever a process that had joined has left."""
        self._environment = environment
        self._embedded = embedded
        self._presence = Presence(settings.home)
        self._supervisor: Supervisor | None = None
        self._service: ModelService | None = None
        self._joined: JoinedDoor | None = None
        self._lease: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Own the engines of this home, or join the process that does."""
        if await asyncio.to_thread(self._presence.claim):
            self.internal_key = secrets.token_urlsafe(32)
            ground = StartGround(
                locate=self.shelf.store.locate,
                logs=self.settings.home / "logs",
                environment=self._environment,
                start_seconds=self.settings.engines.start_seconds,
            )
            self._supervisor = Supervisor(ground, self.settings.engines)
            self._service = ModelService(self.shelf.catalog, self._supervisor, self.telemetry)
            self.inference = Door(self._service)
            return
        joined = JoinedDoor(lambda: find_or_start(self.settings, self._environment))
        self._joined = self.inference = joined
        self._lease = asyncio.create_task(hold_lease(joined))
        logger.info("joined the service process of %s", self.settings.home)

    @property
    def owns_engines(self) -> bool:
        """Whether the engines are this process's children."""
        return self._supervisor is not None

    def publish(self, url: str) -> None:
        """Tell other processes where to join (only the owner is joined)."""
        if self.owns_engines:
            self._presence.publish(Notice(url=url, key=self.internal_key, pid=os.getpid(), embedded=self._embedded))

    async def stop(self) -> None:
        """End the engines, or leave the process that was joined."""
        self.closing.set()
        if self._lease is not None:
            self._lease.cancel()
            await asyncio.gather(self._lease, return_exceptions=True)
        if self._joined is not None:
            await self._joined.close()
        if self._supervisor is not None:
            await self._supervisor.close()
        self._presence.release()

    def entry(self, name: str | None, task: str) -> ModelEntry:
        """The model of that name, or the default of the task."""
        if name is not None:
            return self.shelf.catalog.resolve(name)
        defaults = self.settings.defaults  # the operator's word: a path or a hub's id will do as well
        return self.shelf.catalog.refer(defaults.embedding if task == "embedding" else defaults.chat)

    async def models(self) -> Sequence[ModelStatus]:
        """All models with the state of their files and engines."""
        engines = await self.states()
        files = await asyncio.to_thread(self._file_states)
        return [self._status(entry, files_state, engines.get(entry.id)) for entry, files_state in files]

    def _status(self, entry: ModelEntry, files: FileState, engine: Mapping[str, Any] | None) -> ModelStatus:
        """The engine's state where there is one and files for it; else the files'."""
        aliases = tuple(self.shelf.catalog.names_of(entry))
        if files.state in ("absent", "broken"):
            return ModelStatus(entry=entry, state=files.state, reason=files.reason, aliases=aliases)
        if engine is None:
            return ModelStatus(entry=entry, state="unloaded", reason="", aliases=aliases)
        return ModelStatus(entry=entry, state=engine["state"], reason=engine["reason"], aliases=aliases)

    def _file_states(self) -> list[tuple[ModelEntry, FileState]]:
        return [(entry, self.shelf.store.state(entry)) for entry in self.shelf.catalog.entries()]

    async def states(self) -> dict[str, Any]:
        """Engine states by model id."""
        if self._joined is not None:
            return await self._joined.states()
        if self._service is None:
            return {}
        return {model_id: asdict(state) for model_id, state in self._service.states().items()}

    def lease(self) -> Callable[[], None]:
        """Note that another process has joined."""
        self.leases += 1

        def leave() -> None:
            self.leases -= 1
            self.left.set()

        return leave
