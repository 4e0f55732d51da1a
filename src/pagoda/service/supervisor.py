"""The supervisor: one engine a model, started when first asked for, watched, started again after a crash.

It owns the machine's cores: every engine is told how many threads it may compute with. Which model may stay in memory
is not decided here yet.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from pagoda.core.errors import PagodaError, Unavailable
from pagoda.core.settings import Engines
from pagoda.model.catalog.entry import ModelEntry, RemoteAddress
from pagoda.model.engines import engine_kind
from pagoda.model.engines.contract import Engine, EngineKind, Room
from pagoda.service.process import EngineProcess

logger = logging.getLogger(__name__)

_LONGEST_BACKOFF_SECONDS = 60.0
_STEADY_SECONDS = 30.0
"""An engine that ran this long and then crashed is started again as if it never had before."""


@dataclass(frozen=True, slots=True)
class HostState:
    """What is known of a model's engine."""

    state: Literal["unloaded", "loading", "ready", "failed"]
    reason: str = ""
    pid: int | None = None
    restarts: int = 0


class ModelHost:
    """One model and the engine that runs it."""

    def __init__(
        self,
        model: ModelEntry,
        kind: EngineKind,
        room: Room,
        start: Callable[[ModelEntry, EngineKind, Room], EngineStart],
        retry_seconds: float,
    ) -> None:
        self.model = model
        self.restarts = 0
        self._kind = kind
        self._room = room
        self._start_engine = start
        self._retry_seconds = retry_seconds
        self._engine: Engine | None = None
        self._process: EngineProcess | None = None
        self._starting: asyncio.Task[Engine] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._failures = 0
        self._next_try = 0.0
        self._reason = ""
        self._closing = False

    @property
    def state(self) -> HostState:
        """As it is now."""
        pid = self._process.pid if self._process else None
        if self._engine is not None:
            return HostState("ready", pid=pid, restarts=self.restarts)
        if self._starting is not None and not self._starting.done():
            return HostState("loading", self._reason, pid, self.restarts)
        return HostState("failed" if self._reason else "unloaded", self._reason, None, self.restarts)

    async def engine(self) -> Engine:
        """The running engine, started if need be. Raises ``Unavailable`` with the reason when it cannot be."""
        if self._engine is not None:
            return self._engine
        if self._starting is None or self._starting.done():
            wait = self._next_try - time.monotonic()
            if wait > 0:  # the last start failed a moment ago; trying again at once would fail the same way
                raise Unavailable(f"{self._reason} The next try is in {wait:.0f} s.")
            self._begin(0.0)
        if self._starting is None:
            raise RuntimeError("a start was begun")
        return await asyncio.shield(self._starting)

    async def replacement(self, lost: Engine) -> Engine:
        """The running engine after ``lost`` could not be reached: its successor, once there is one."""
        if self._engine is lost and self._watching is not None and (self._process is None or self._process.pid is None):
            await asyncio.shield(self._watching)  # its end was not noticed yet
        if self._engine is lost:
            raise Unavailable(f"The engine of {self.model.id} runs but takes no connections.")
        return await self.engine()

    def _begin(self, delay: float) -> None:
        self._starting = asyncio.create_task(self._start(delay))
        self._starting.add_done_callback(_note_failure)

    async def _start(self, delay: float) -> Engine:
        await asyncio.sleep(delay)
        try:
            process, engine = await self._start_engine(self.model, self._kind, self._room).run()
        except PagodaError as error:
            self._failures += 1
            self._reason = error.message
            self._next_try = time.monotonic() + self._backoff()
            raise
        self._process, self._engine, self._reason = process, engine, ""
        if process is not None:
            self._watching = asyncio.create_task(self._watch(process, engine))
        return engine

    async def _watch(self, process: EngineProcess, engine: Engine) -> None:
        """Wait for the process to end; unless that is wanted, start another."""
        began = time.monotonic()
        reason = await process.wait()
        if self._closing:
            return
        self._engine = None
        self._failures = 1 if time.monotonic() - began > _STEADY_SECONDS else self._failures + 1
        self._reason = f"The engine of {self.model.id} stopped: {reason}."
        self.restarts += 1
        delay = self._backoff()
        logger.warning("%s It is started again in %.1f s.", self._reason, delay)
        await engine.close()
        self._begin(delay)

    def _backoff(self) -> float:
        seconds: float = self._retry_seconds * 2 ** min(self._failures - 1, 16)
        return min(seconds, _LONGEST_BACKOFF_SECONDS)

    async def close(self) -> None:
        """End the engine and everything that waits for it."""
        self._closing = True
        for task in (self._starting, self._watching):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(t for t in (self._starting, self._watching) if t is not None), return_exceptions=True)
        if self._engine is not None:
            await self._engine.close()
            self._engine = None
        if self._process is not None:
            await self._process.stop()


class EngineStart:
    """The steps from a catalog entry to a running engine."""

    def __init__(self, model: ModelEntry, kind: EngineKind, room: Room, ground: StartGround) -> None:
        self._model = model
        self._kind = kind
        self._room = room
        self._ground = ground

    async def run(self) -> tuple[EngineProcess | None, Engine]:
        """Find the file, launch, connect. Raises ``Unavailable`` or ``NotFound``."""
        if self._kind.runs == "remote":
            return None, await self._connect_remote()
        path = await asyncio.to_thread(self._ground.locate, self._model)
        key = secrets.token_urlsafe(32)
        plan = await asyncio.to_thread(self._kind.plan, self._model, path, self._room, key)
        log = self._ground.logs / f"engine-{self._model.id.replace('/', '--')}.log"
        process = EngineProcess(self._model.id, plan, log)
        began = time.monotonic()
        url = await process.start(self._ground.start_seconds)
        try:
            engine = await self._kind.connect(self._model, url, key, self._room)
        except BaseException:
            await process.stop()
            raise
        logger.info("%s is ready on %s after %.1f s", self._model.id, self._kind.name, time.monotonic() - began)
        return process, engine

    async def _connect_remote(self) -> Engine:
        source = self._model.source
        if not isinstance(source, RemoteAddress):
            raise Unavailable(f"{self._model.id} names no remote address.", retryable=False)
        key = ""
        if source.key_env:
            key = self._ground.environment.get(source.key_env, "")
            if not key:
                raise Unavailable(
                    f"{self._model.id} needs its key in the environment variable {source.key_env}, which is not set "
                    "where the service runs.",
                    retryable=False,
                )
        return await self._kind.connect(self._model, source.url, key, self._room)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartGround:
    """What starting any engine needs from outside."""

    locate: Callable[[ModelEntry], Path | None]
    """Gives the model's file, deriving it if need be; blocking; never touches the network."""
    logs: Path
    environment: Mapping[str, str]
    """Where remote keys are found by name."""
    start_seconds: float


class Supervisor:
    """All engines of this service process."""

    def __init__(self, ground: StartGround, settings: Engines) -> None:
        self._ground = ground
        self._settings = settings
        self._hosts: dict[str, ModelHost] = {}

    async def engine(self, model: ModelEntry) -> Engine:
        """The running engine of a model, started if need be."""
        host = self._hosts.get(model.id)
        if host is None or host.model != model:
            if host is not None:  # the entry was changed under the same name
                await host.close()
            host = self._hosts[model.id] = ModelHost(
                model,
                engine_kind(model.engine),
                self.room(),
                lambda entry, kind, room: EngineStart(entry, kind, room, self._ground),
                self._settings.retry_seconds,
            )
        return await host.engine()

    async def replacement(self, lost: Engine) -> Engine:
        """The running engine of a model whose last one could not be reached."""
        host = self._hosts.get(lost.model.id)
        return await (self.engine(lost.model) if host is None else host.replacement(lost))

    def room(self) -> Room:
        """What each engine may use of this machine."""
        return Room(
            threads=self._settings.threads or psutil.cpu_count(logical=False) or 1,
            parallel=self._settings.parallel,
            context=self._settings.context,
            spin=self._settings.spin,
            silence_seconds=self._settings.request_seconds,
        )

    def states(self) -> dict[str, HostState]:
        """The state of every model that was asked for, by id."""
        return {model_id: host.state for model_id, host in self._hosts.items()}

    async def close(self) -> None:
        """End all engines."""
        await asyncio.gather(*(host.close() for host in self._hosts.values()))
        self._hosts.clear()


def _note_failure(task: asyncio.Task[Engine]) -> None:
    """A start that nobody waits for any more still says why it failed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("%s", error)
