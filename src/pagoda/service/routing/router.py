"""The router: gives each request of a pool a replica, another when that fails, and one answer whatever happened."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Literal, TypeAlias, TypeVar

from pagoda.core.errors import ModelError, NotFound, PagodaError
from pagoda.core.settings import Routing
from pagoda.core.types import CallDelta, Delta, Event, Finish, Generation, Usage
from pagoda.model.catalog.entry import ModelEntry, Pool, host_id
from pagoda.model.engines.contract import Engine
from pagoda.service.note import SLOT
from pagoda.service.routing.breaker import STATES as CIRCUIT_STATES
from pagoda.service.routing.fault import Outcome
from pagoda.service.routing.policies import Load
from pagoda.service.routing.pool import ReplicaPool
from pagoda.service.routing.prefix import prefix_of
from pagoda.service.routing.replica import Attempt, Replica
from pagoda.service.routing.seam import INTERRUPTED, Stitch, Told, continue_from, interrupted
from pagoda.service.routing.trip import Trip
from pagoda.service.supervisor import Supervisor
from pagoda.service.telemetry import Telemetry

T = TypeVar("T")

logger = logging.getLogger(__name__)

ReplicaState: TypeAlias = Literal["up", "starting", "draining", "dead", "wedged"]
STATES: tuple[ReplicaState, ...] = ("up", "starting", "draining", "dead", "wedged")
_WARM_SECONDS = 5.0


class Router:
    """All pools of this service process. ``check`` refuses what an engine cannot do."""

    def __init__(
        self,
        supervisor: Supervisor,
        telemetry: Telemetry,
        settings: Routing,
        check: Callable[[Generation, Engine], None],
    ) -> None:
        self.pools: dict[str, ReplicaPool] = {}
        self._supervisor = supervisor
        self._telemetry = telemetry
        self._settings = settings
        self._check = check
        self._warmed: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, pool: ReplicaPool) -> None:
        """Know a pool."""
        self.pools[pool.name] = pool

    def pool(self, name: str) -> ReplicaPool:
        """The pool of that name. Raises ``NotFound``."""
        if name not in self.pools:
            there = ", ".join(self.pools) or "none"
            raise NotFound(f"There is no pool {name!r}; there are: {there}.", code="pool_not_found", param="pool")
        return self.pools[name]

    def of(self, entry: ModelEntry) -> ReplicaPool | None:
        """The pool behind an entry, if it is one's."""
        return self.pools.get(entry.id) if isinstance(entry.source, Pool) else None

    def home_of(self, model: ModelEntry) -> tuple[ModelEntry, Load]:
        """Whose line an engine that is asked by its own name stands in, and where its load counts: with the (first)
        pool that it is a replica of, so that both ways together ask no more of it than it can do."""
        name = host_id(model)
        for pool in self.pools.values():
            replica = pool.replicas.get(name)
            if replica is not None and replica.entry.id == name:
                return pool.entry, replica.load
        return model, Load(name)

    def ready(self, replica: Replica) -> bool:
        """Whether its engine answers without being started first."""
        return not replica.local or self._supervisor.state_of(replica.entry.id) == "ready"

    async def close(self) -> None:
        """End what was begun in the background."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- asking -------------------------------------------------------------------------------------------------------

    async def ask(self, pool: ReplicaPool, ask: Callable[[Engine], Awaitable[T]]) -> T:
        """A whole answer from one of the pool's replicas."""
        trip = Trip(pool, self._settings, ())
        self._warm(pool)
        while True:
            replica = await trip.next()
            attempt = self._begin(pool, replica, trip)
            fault: ModelError | None = None
            ended = False
            try:
                async with self._supervisor.lease(replica.entry) as lease:
                    answer = await attempt.hear(partial(ask, lease.engine))
                ended = True
                return answer
            except ModelError as error:
                fault = error
            except PagodaError:
                ended = True
                raise
            finally:
                outcome = self._end(pool, attempt, fault, ended=ended or fault is not None)
            trip.failed(fault, outcome, spoken=False)

    async def generate(self, pool: ReplicaPool, request: Generation) -> AsyncIterator[Event]:
        """An answer's events. Before the first token a failure stays unseen; after it the answer is continued.

        One generator, since each further one would cost every frame and request its price.
        """
        trip = Trip(pool, self._settings, prefix_of(request))
        told = Told(request)
        self._warm(pool)
        while True:
            replica = await self._following(trip, told)
            attempt = self._begin(pool, replica, trip, request)
            pulse, hear = replica.pulse, attempt.hear
            told.held.clear()
            fault: ModelError | None = None
            ended = False
            try:
                async with self._supervisor.lease(replica.entry) as lease:
                    try:
                        events = self._asked(lease.engine, replica, told)
                        async with aclosing(events):  # type: ignore[type-var]
                            following = partial(anext, events, None)
                            while (event := await hear(following)) is not None:
                                pulse.beat(monotonic())
                                if isinstance(event, Delta | CallDelta):
                                    attempt.heard = True
                                    told.note(event)
                                    yield event
                                else:
                                    for each in told.in_order(event, pool.name):
                                        yield each
                    except ModelError as error:  # kept from the lease, which would wait for the end of a process
                        fault = error
                ended = True
            except ModelError as error:
                fault = error
            except PagodaError:
                ended = True
                raise
            finally:
                outcome = self._end(pool, attempt, fault, ended=ended or fault is not None)
            if fault is None:
                return
            self._go_on(pool, trip, told, fault, outcome)

    def _asked(self, engine: Engine, replica: Replica, told: Told) -> AsyncIterator[Event]:
        """The answer that an engine gives, or the rest of one that has begun."""
        request = told.request
        if request.model != replica.entry.id:
            request = replace(request, model=replica.entry.id)
        if told.spoken:
            return self._rest(engine, replica, request, told)
        self._check(request, engine)
        return engine.generate(request, told.draw)

    async def _rest(self, engine: Engine, replica: Replica, request: Generation, told: Told) -> AsyncIterator[Event]:
        """The rest of an answer, sewn to what was told."""
        plan = await continue_from(told, request, engine)
        stitch = Stitch(told, plan)
        if plan.over:
            yield Finish(0, "length")
            yield stitch.usage(Usage((plan.prompt_tokens or 0) + plan.told_tokens))
            return
        self._check(plan.request, engine)
        async with aclosing(engine.generate(plan.request, told.draw)) as events:  # type: ignore[type-var]
            async for event in events:
                replica.pulse.beat(monotonic())
                for each in stitch.sew(event):
                    yield each
                if stitch.over:
                    return

    async def _following(self, trip: Trip, told: Told) -> Replica:
        try:
            return await trip.next()
        except ModelError as error:
            if told.spoken:
                raise interrupted(error.message.rstrip(".")) from error
            raise

    def _go_on(self, pool: ReplicaPool, trip: Trip, told: Told, fault: ModelError, outcome: Outcome) -> None:
        """Raise where another replica must not be asked, or an answer that has begun is not continued."""
        try:
            trip.failed(fault, outcome, spoken=told.spoken)
        except ModelError as error:
            if told.spoken and error.code != INTERRUPTED:
                raise interrupted(error.message.rstrip(".")) from error
            raise
        if told.spoken:
            self._refuse_seam(pool, told, fault)
        else:
            told.forget()

    def _refuse_seam(self, pool: ReplicaPool, told: Told, error: ModelError) -> None:
        """Raise where an answer that has begun is not continued."""
        why = told.objection()
        if pool.settings.interrupted == "error":
            why = "this pool's setting interrupted says so"
        if why:
            self._telemetry.continuations.labels(pool.name, "refused").inc()
            raise interrupted(why) from error
        self._telemetry.continuations.labels(pool.name, "tried").inc()

    # -- what is counted ----------------------------------------------------------------------------------------------

    def _begin(self, pool: ReplicaPool, replica: Replica, trip: Trip, request: Generation | None = None) -> Attempt:
        if trip.retries:
            self._telemetry.retries.labels(pool.name).inc()
        if (note := SLOT.get()) is not None:
            note.attempts += 1
        return replica.begin(request)

    def _end(self, pool: ReplicaPool, attempt: Attempt, error: ModelError | None, *, ended: bool) -> Outcome:
        replica = attempt.replica
        outcome = replica.end(attempt, error, ended=ended)
        self._telemetry.child(self._telemetry.attempts, pool.name, replica.id, outcome).inc()
        if outcome == "death" and not replica.local:
            replica.sink("dead", "it takes no connections")
        if error is not None:
            logger.warning("%s of pool %s failed a request (%s): %s", replica.id, pool.name, outcome, error.message)
            pool.notice()
        return outcome

    def _warm(self, pool: ReplicaPool) -> None:
        """Have the engines of this machine started, beside the requests; a failed one not too often."""
        for replica in pool.replicas.values():
            if not replica.local or replica.draining:
                continue
            if self._supervisor.state_of(replica.entry.id) not in ("unloaded", "asleep", "failed"):
                continue
            now = monotonic()
            if now - self._warmed.get(replica.entry.id, -_WARM_SECONDS) >= _WARM_SECONDS:
                self._warmed[replica.entry.id] = now
                task = asyncio.create_task(self._load(pool, replica))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _load(self, pool: ReplicaPool, replica: Replica) -> None:
        try:
            await self._supervisor.load(replica.entry)
        except PagodaError as error:
            logger.warning("%s of pool %s did not start: %s", replica.id, pool.name, error.message)
        pool.notice()

    def report(self) -> None:
        """Set the gauges to what they are now."""
        now = monotonic()
        for pool in self.pools.values():
            for replica in pool.replicas.values():
                names = (pool.name, replica.id)
                self._telemetry.replica_up.labels(*names).set(self.state(replica) != "dead" and replica.health == "up")
                self._telemetry.replica_outstanding.labels(*names).set(replica.load.outstanding)
                current = self.state(replica)
                for state in STATES:
                    self._telemetry.replica_state.labels(*names, state).set(state == current)
                for circuit in CIRCUIT_STATES:
                    self._telemetry.breaker_state.labels(*names, circuit).set(replica.breaker.state(now) == circuit)

    def state(self, replica: Replica) -> ReplicaState:
        """What a replica is, in a word."""
        if replica.health != "up":
            return replica.health
        if replica.local and self._supervisor.state_of(replica.entry.id) in ("loading", "failed"):
            return "starting" if not replica.outcomes else "dead"
        return "draining" if replica.draining else "up"


async def first_text_first(events: AsyncIterator[Event]) -> AsyncIterator[Event]:
    """The same events, the first only once the second is there: until then, nobody has been told who answers."""
    async with aclosing(events):  # type: ignore[type-var]
        held = await anext(events, None)
        async for event in events:
            if held is not None:
                yield held
                held = None
            yield event
        if held is not None:
            yield held
