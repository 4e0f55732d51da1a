"""The supervisor: which engines run, within the machine's memory and cores. It carries out what ``Residency`` decides.

A request holds a *lease* on a model for as long as it uses its engine. Taking one loads the model if need be, and waits
in line where memory is short; while it lasts the engine is not ended. Every change of a model's state is published.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pagoda.core.errors import PagodaError, Unavailable
from pagoda.core.settings import Engines
from pagoda.model.catalog.entry import Adapter, ModelEntry, host_id
from pagoda.model.engines.contract import Engine, Footprint, Memory, Room
from pagoda.service.attachments import Attachments
from pagoda.service.hardware import memory_budget, room_of
from pagoda.service.host import ModelHost, StartGround
from pagoda.service.lease import Leasing
from pagoda.service.residency import (
    Action,
    Grant,
    Load,
    Refuse,
    Residency,
    Resident,
    Sleep,
    State,
    Ticket,
    Unload,
    Wake,
)

logger = logging.getLogger(__name__)

INSUFFICIENT_MEMORY = "insufficient_memory"
"""Code of the error of a model that cannot fit."""
_MEASURE_SECONDS = 5.0
_NOTICE_SECONDS = 0.25
"""A killed process closes its connections some milliseconds before its end is seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """What is known of a model's engine. Memory in bytes."""

    state: State
    reason: str = ""
    pid: int | None = None
    restarts: int = 0
    loads: int = 0
    pinned: bool = False
    in_flight: int = 0
    waiting: int = 0
    need: Memory | None = None
    """The estimate, once the model was asked for."""
    held: Footprint = Footprint()
    """What is set aside for it."""
    used: Footprint = Footprint()
    """What its process was last seen to use."""
    context: int | None = None
    parallel: int = 0
    kv_type: str = ""
    idle_seconds: float | None = None
    """For how long nobody has used it; ``None`` unless it is ready and idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """A model has come into a state, at a Unix time in seconds."""

    model: str
    state: State
    reason: str
    at: float


class Supervisor:
    """All engines of this service process."""

    def __init__(self, ground: StartGround, settings: Engines) -> None:
        self._ground = ground
        self._settings = settings
        self._room = room_of(settings)  # once: asking what the GPUs have takes a process
        self._hosts: dict[str, ModelHost] = {}
        self._residency = Residency(
            memory_budget(settings.memory, settings.gpu_memory),
            quantum=settings.swap_seconds,
            idle_seconds=settings.idle_seconds,
            note=self._publish,
        )
        self._tickets = itertools.count()
        self._grants: dict[Ticket, asyncio.Future[None]] = {}
        self._watchers: set[asyncio.Queue[StateChange]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._measuring: asyncio.Task[None] | None = None
        self._entering: dict[str, asyncio.Lock] = {}
        self._attachments = Attachments(ground.locate)

    # -- using models -------------------------------------------------------------------------------------------------

    def lease(self, model: ModelEntry) -> Leasing:
        """Use a model, for as long as the block lasts; an adapter by its base's engine, which it is loaded into.

        Entering raises ``Unavailable`` with the reason when it cannot be loaded, or not in this memory.
        """
        return Leasing(self, model)

    async def load(self, model: ModelEntry) -> Engine:
        """Have the model in memory. Raises ``Unavailable`` with the reason when that cannot be."""
        async with self.lease(model) as lease:
            return lease.engine

    async def unload(self, model_id: str) -> None:
        """Have the model out of memory, once the requests that use it have ended; later requests bring it back."""
        host = self._hosts.get(model_id)
        if host is None:
            return
        ends = host.ends
        with self.watched() as changes:
            self._do(self._residency.unload(model_id, time.monotonic()))
            while host.ends == ends and self._residency.resident(model_id).state not in ("unloaded", "failed"):
                await changes.get()

    def keep(self, model: ModelEntry, *, pinned: bool | None = None, seconds: float | None = None) -> None:
        """Pin or unpin a model, or choose its idle time (0: it never leaves for idleness)."""
        resident = self._residency.resident(model.id)
        if seconds is not None:
            resident.keep_seconds = seconds
        self._do(self._residency.pin(model.id, resident.pinned if pinned is None else pinned, time.monotonic()))

    # -- what is known ------------------------------------------------------------------------------------------------

    def room(self) -> Room:
        """What each engine may use of this machine."""
        return self._room

    @property
    def budget(self) -> Footprint:
        """Bytes that all engines together may fill."""
        return self._residency.budget

    @property
    def held(self) -> Footprint:
        """Bytes that are set aside now."""
        return self._residency.held

    def states(self) -> dict[str, HostState]:
        """The state of every model that was asked for, by id."""
        return {model_id: self._state(host) for model_id, host in self._hosts.items()}

    def state_of(self, model_id: str) -> State:
        """The state of a model's engine."""
        return self._residency.resident(model_id).state if model_id in self._hosts else "unloaded"

    def engine_of(self, model_id: str) -> Engine | None:
        """The model's engine while it runs, for those who only look at it: it may end at any time."""
        host = self._hosts.get(model_id)
        return host.engine if host is not None else None

    def _state(self, host: ModelHost) -> HostState:
        resident = self._residency.resident(host.model.id)
        return HostState(
            state=resident.state,
            reason=resident.reason,
            pid=host.pid,
            restarts=host.restarts,
            loads=host.starts,
            pinned=resident.pinned,
            in_flight=resident.in_flight,
            waiting=len(resident.waiting),
            need=resident.need,
            held=resident.held,
            used=host.used,
            context=host.engine.context if host.engine is not None else None,
            parallel=host.room.parallel,
            kv_type=host.room.kv_type,
            idle_seconds=time.monotonic() - resident.last_used if resident.idle else None,
        )

    @contextmanager
    def watched(self) -> Iterator[asyncio.Queue[StateChange]]:
        """Every change of a state while the block lasts."""
        queue: asyncio.Queue[StateChange] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            yield queue
        finally:
            self._watchers.remove(queue)

    def _publish(self, resident: Resident) -> None:
        change = StateChange(model=resident.model, state=resident.state, reason=resident.reason, at=time.time())
        for queue in self._watchers:
            queue.put_nowait(change)

    # -- leases -------------------------------------------------------------------------------------------------------

    async def host_of(self, model: ModelEntry) -> ModelEntry:
        """The model whose engine answers: an adapter's base, to which it is attached, else the model itself."""
        if isinstance(model.source, Adapter):
            return await self._attachments.attach(self._ground.find(host_id(model)), model)
        return model

    async def acquire(self, model: ModelEntry) -> Engine:
        """Wait in line for the model, with what is attached to it by now; on return it counts as in flight."""
        model = self._attachments.whole(model)
        known = self._hosts.get(model.id)
        if known is not None and known.engine is not None and known.model is model and self._residency.use(model.id):
            return known.engine
        host = await self._host(model)
        resident = self._residency.resident(model.id)
        if resident.state == "failed":
            host.refuse_hasty_retry(resident.reason)
        need = await host.memory()
        ticket = next(self._tickets)
        grant = self._grants[ticket] = asyncio.get_running_loop().create_future()
        self._do(self._residency.want(model.id, need, ticket, time.monotonic()))
        try:
            await grant
        except asyncio.CancelledError:
            if grant.cancelled():
                self._do(self._residency.give_up(model.id, ticket, time.monotonic()))
            elif grant.exception() is None:
                self.release(model.id)
            raise
        finally:
            del self._grants[ticket]
        if host.engine is None:  # it crashed between the grant and now
            self.release(model.id)
            return await self.acquire(model)
        return host.engine

    def release(self, model_id: str) -> None:
        """A request that used the model has ended."""
        self._do(self._residency.release(model_id, time.monotonic()))

    async def _host(self, model: ModelEntry) -> ModelHost:
        """The host of an entry; one whose entry was changed under the same name drains and is replaced."""
        async with self._entering.setdefault(model.id, asyncio.Lock()):
            host = self._hosts.get(model.id)
            while host is not None and host.model != model:
                await self._settled(model.id)  # an engine that is just starting would come up under the new host
                if host.starts == host.ends:
                    break
                await self.unload(model.id)
            if host is None or host.model != model:
                host = ModelHost(model, self.room(), self._ground, self._settings.retry_seconds)
                self._hosts[model.id] = host
            return host

    async def _settled(self, model_id: str) -> None:
        """Wait while the model is on its way into memory."""
        with self.watched() as changes:
            while self._residency.resident(model_id).state == "loading":
                await changes.get()

    async def successor(self, model: ModelEntry, lost: Engine) -> None:
        """Wait until the end of a lost engine was noticed. Raises ``Unavailable`` when its process still runs."""
        host = self._hosts[model.id]
        if host.engine is lost and host.pid is None and (watch := self._watching.get(model.id)):
            await asyncio.shield(watch)
        if host.engine is lost:
            raise Unavailable(f"The engine of {model.id} runs but takes no connections.")

    async def notice_end(self, model_id: str, lost: Engine) -> None:
        """Wait, not for long, until the end of an engine that dropped a request is seen: whoever comes next in line
        would else be sent to the dying process and lost too."""
        watch = self._watching.get(model_id)
        if watch is not None and self._hosts[model_id].engine is lost:
            await asyncio.wait((watch,), timeout=_NOTICE_SECONDS)

    # -- carrying out -------------------------------------------------------------------------------------------------

    def _do(self, actions: list[Action]) -> None:
        """Carry out what the rules decided, and ask them again when time alone may change something."""
        for action in actions:
            match action:
                case Load(model_id, again):
                    self._spawn(self._load(self._hosts[model_id], again=again))
                case Unload(model_id):
                    self._spawn(self._unload(self._hosts[model_id]))
                case Sleep(model_id):
                    host = self._hosts[model_id]
                    self._spawn(self._move(host, host.sleep, self._residency.fell_asleep))
                case Wake(model_id):
                    host = self._hosts[model_id]
                    self._spawn(self._move(host, host.wake, self._residency.loaded))
                case Grant(model_id, ticket):
                    grant = self._grants.get(ticket)
                    if grant is None or grant.done():  # whoever asked has left this very moment
                        self.release(model_id)
                    else:
                        grant.set_result(None)
                case Refuse(model_id, ticket, reason, too_large):
                    fault = self._hosts[model_id].fault
                    if too_large:
                        self._refuse(ticket, Unavailable(reason, code=INSUFFICIENT_MEMORY, retryable=False))
                    elif fault is None:
                        self._refuse(ticket, Unavailable(reason))
                    else:
                        self._refuse(ticket, Unavailable(reason, code=fault.code, retryable=fault.retryable))
        self._set_timer()

    def _refuse(self, ticket: Ticket, error: Unavailable) -> None:
        grant = self._grants.get(ticket)
        if grant is not None and not grant.done():
            grant.set_exception(error)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = time.monotonic()
        if (next_time := self._residency.next_time(now)) is not None:
            self._timer = asyncio.get_running_loop().call_later(next_time - now, self._tick)

    def _tick(self) -> None:
        self._do(self._residency.tick(time.monotonic()))

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _load(self, host: ModelHost, *, again: bool) -> None:
        model_id = host.model.id
        try:
            await host.start(again=again)
        except PagodaError as error:
            logger.error("%s", error)
            self._do(self._residency.failed(model_id, error.message, time.monotonic()))
            return
        self._watch_over(host)
        if self._measuring is None or self._measuring.done():
            self._measuring = self._spawn(self._measure())
        self._do(self._residency.loaded(model_id, time.monotonic()))

    def _watch_over(self, host: ModelHost) -> None:
        self._watching[host.model.id] = self._spawn(self._watch(host))

    async def _watch(self, host: ModelHost) -> None:
        reason, lost = await host.wait()
        self._do(self._residency.crashed(host.model.id, reason, time.monotonic()))
        if lost is not None:
            await lost.close()

    async def _unload(self, host: ModelHost) -> None:
        model_id = host.model.id
        self._watching.pop(model_id).cancel()
        await host.stop()
        logger.info("%s has left memory", model_id)
        self._do(self._residency.gone(model_id, time.monotonic()))

    async def _move(
        self, host: ModelHost, move: Callable[[], Awaitable[None]], moved: Callable[[str, float], list[Action]]
    ) -> None:
        """Put an engine to sleep or wake it. Nobody watches it meanwhile: one that fails on its way is ended."""
        model_id = host.model.id
        self._watching.pop(model_id).cancel()
        try:
            await move()
        except PagodaError as error:
            logger.warning("%s is ended instead: %s", model_id, error.message)
            await host.stop()
            self._do(self._residency.lost(model_id, error.message, time.monotonic()))
            return
        self._watch_over(host)
        self._do(moved(model_id, time.monotonic()))

    async def _measure(self) -> None:
        """Now and then, what every process really uses; for as long as there is one."""
        while running := [host for host in self._hosts.values() if host.pid is not None]:
            for host in running:
                before = self.state_of(host.model.id)
                used = await host.measure()
                if self.state_of(host.model.id) == before:  # else it may tell of what is no more
                    self._do(self._residency.measured(host.model.id, used, time.monotonic()))
            await asyncio.sleep(_MEASURE_SECONDS)

    async def close(self) -> None:
        """End all engines and everything that waits for them."""
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for ticket in list(self._grants):
            self._refuse(ticket, Unavailable("Pagoda is shutting down."))
        await asyncio.gather(*(host.stop() for host in self._hosts.values()))
        self._hosts.clear()
        self._attachments.close()
