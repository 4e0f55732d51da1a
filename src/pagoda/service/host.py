"""One model's engine: what it will take, its start, its end, and how long to wait before it is tried again."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pagoda.core.errors import NotFound, PagodaError, Unavailable
from pagoda.model.catalog.entry import ModelEntry, RemoteAddress
from pagoda.model.engines import engine_kind
from pagoda.model.engines.contract import Engine, Footprint, Memory, Room, Sleeps, fitted
from pagoda.service.hardware import process_memory
from pagoda.service.process import EngineProcess

logger = logging.getLogger(__name__)

_LONGEST_BACKOFF_SECONDS = 60.0
_STEADY_SECONDS = 30.0
"""An engine that ran this long and then crashed is started again as if it never had before."""


def _no_entries(model_id: str) -> ModelEntry:
    raise NotFound(f"There is no model {model_id}.", param="model")


@dataclass(frozen=True, slots=True, kw_only=True)
class StartGround:
    """What starting any engine needs from outside."""

    locate: Callable[[ModelEntry], Path | None]
    """Gives the model's file, deriving it if need be; blocking; never touches the network."""
    logs: Path
    environment: Mapping[str, str]
    """Where remote keys are found by name."""
    start_seconds: float
    find: Callable[[str], ModelEntry] = _no_entries
    """Gives the entry of an adapter's base."""


class ModelHost:
    """One model and the engine that runs it. Which of its methods is called when is the supervisor's business."""

    def __init__(self, model: ModelEntry, room: Room, ground: StartGround, retry_seconds: float) -> None:
        self.model = model
        self.kind = engine_kind(model.engine)
        self.room = fitted(room, self.kind)
        self.engine: Engine | None = None
        self.used = Footprint()
        """What the process held when it was last looked at."""
        self.fault: PagodaError | None = None
        """Why the last start failed, when one did."""
        self.restarts = 0
        self.starts = 0
        self.ends = 0
        self._ground = ground
        self._retry_seconds = retry_seconds
        self._process: EngineProcess | None = None
        self._path: Path | None = None
        self._memory: Memory | None = None
        self._preparing = asyncio.Lock()
        self._began = 0.0
        self._failures = 0
        self._next_try = 0.0

    @property
    def pid(self) -> int | None:
        """The engine's process while it runs."""
        return self._process.pid if self._process is not None else None

    async def memory(self) -> Memory:
        """What the model will take. Finds its file first, deriving it if need be; raises what keeps it from that."""
        async with self._preparing:
            if self._memory is None:
                if self.kind.runs == "process":
                    self._path = await asyncio.to_thread(self._ground.locate, self.model)
                self._memory = await asyncio.to_thread(self.kind.memory, self.model, self._path, self.room)
            return self._memory

    def refuse_hasty_retry(self, reason: str) -> None:
        """Raise ``Unavailable`` while the last failure is so fresh that another try would fail the same way."""
        if (wait := self._next_try - time.monotonic()) > 0:
            raise Unavailable(f"{reason} The next try is in {wait:.0f} s.")

    async def start(self, *, again: bool) -> Engine:
        """Launch and connect; after a crash (``again``) not before the back-off has passed."""
        if again:
            await asyncio.sleep(self._next_try - time.monotonic())
        try:
            self.engine = await (self._connect_remote() if self.kind.runs == "remote" else self._launch())
        except PagodaError as error:
            self.fault = error
            self._note_failure()
            self._memory = None  # the file may be mended or replaced before the next try
            raise
        self.starts += 1
        return self.engine

    async def wait(self) -> tuple[str, Engine | None]:
        """Wait for the engine's process to end by itself; for ever where there is none.

        Gives the reason, and the lost engine, whose connections are still to be closed.
        """
        if self._process is None:
            await asyncio.Event().wait()
            raise RuntimeError("nothing sets that event")
        reason = await self._process.wait()
        lost, self.engine = self.engine, None
        self.used = Footprint()
        self.ends += 1
        self.restarts += 1
        if time.monotonic() - self._began > _STEADY_SECONDS:
            self._failures = 0
        delay = self._note_failure()
        logger.warning(
            "The engine of %s stopped: %s. If it is needed it is started in %.1f s.", self.model.id, reason, delay
        )
        return f"The engine of {self.model.id} stopped: {reason}.", lost

    async def stop(self) -> None:
        """End the engine and its process."""
        if self.engine is not None:
            await self.engine.close()
            self.engine = None
        if self._process is not None:
            await self._process.stop()
            self._process = None
        self.used = Footprint()
        self._memory = None
        self.ends += 1

    async def sleep(self) -> None:
        """Have the engine leave its GPU memory. Raises ``PagodaError`` when it does not; its state is then unknown."""
        await self._within_start("fell asleep", lambda engine: engine.sleep())

    async def wake(self) -> None:
        """Have the engine come back. Raises ``PagodaError`` when it does not; its state is then unknown."""
        await self._within_start("woke", lambda engine: engine.wake())

    async def _within_start(self, what: str, move: Callable[[Sleeps], Awaitable[None]]) -> None:
        engine: object = self.engine
        if not isinstance(engine, Sleeps):
            raise Unavailable(f"The engine of {self.model.id} is gone, or has no sleep.")
        began, seconds = time.monotonic(), self._ground.start_seconds
        try:
            async with asyncio.timeout(seconds):
                await move(engine)
        except TimeoutError:
            raise Unavailable(f"The engine of {self.model.id} has not {what} within {seconds:g} s.") from None
        logger.info("%s %s in %.1f s", self.model.id, what, time.monotonic() - began)

    async def measure(self) -> Footprint:
        """Look at what the process holds now."""
        pid = self.pid
        if pid is not None:
            self.used = await asyncio.to_thread(process_memory, pid)
        return self.used

    def _note_failure(self) -> float:
        self._failures += 1
        delay = min(self._retry_seconds * 2.0 ** min(self._failures - 1, 16), _LONGEST_BACKOFF_SECONDS)
        self._next_try = time.monotonic() + delay
        return delay

    async def _launch(self) -> Engine:
        await self.memory()  # a host that replaced another may be started by those who waited for that one
        self._began = time.monotonic()
        key = secrets.token_urlsafe(32)
        plan = await asyncio.to_thread(self.kind.plan, self.model, self._path, self.room, key)
        log = self._ground.logs / f"engine-{self.model.id.replace('/', '--')}.log"
        process = EngineProcess(self.model.id, plan, log)
        url = await process.start(self._ground.start_seconds)
        try:
            engine = await self.kind.connect(self.model, url, key, self.room)
        except BaseException:
            await process.stop()
            raise
        self._process = process
        logger.info("%s is ready on %s after %.1f s", self.model.id, self.kind.name, time.monotonic() - self._began)
        return engine

    async def _connect_remote(self) -> Engine:
        source = self.model.source
        if not isinstance(source, RemoteAddress):
            raise Unavailable(f"{self.model.id} names no remote address.", retryable=False)
        key = ""
        if source.key_env:
            key = self._ground.environment.get(source.key_env, "")
            if not key:
                raise Unavailable(
                    f"{self.model.id} needs its key in the environment variable {source.key_env}, which is not set "
                    "where the service runs.",
                    retryable=False,
                )
        return await self.kind.connect(self.model, source.url, key, self.room)
