"""Watching the replicas: dead, wedged or busy, without generating anything.

Dead: no process, or no connection. Wedged: connected, but neither an answer to a health question nor progress for
longer than its own recent pace explains, several times in a row. Busy: slow, but advancing; it stays.

An engine that reads a long prompt says nothing meanwhile, llama.cpp not even to a question after its health. One of
this machine shows by the processor time it uses that it works; an address is given time by the length of what it reads.
"""

from __future__ import annotations

import asyncio
import logging
import time

from pagoda.core.errors import ModelError, PagodaError
from pagoda.core.recurring import recur
from pagoda.core.settings import Routing
from pagoda.model.engines.contract import Engine, Health
from pagoda.model.engines.openai import STOPPED, UNREACHABLE
from pagoda.service.hardware import process_seconds
from pagoda.service.routing.pool import ReplicaPool
from pagoda.service.routing.replica import Replica
from pagoda.service.routing.router import Router
from pagoda.service.supervisor import Supervisor

logger = logging.getLogger(__name__)

_LONGEST_QUESTION_SECONDS = 30.0
_GRACE = 10.0
"""How much more silence is granted to an address that answers, but says nothing of its work."""
_SLOWEST_READING = 150.0
"""Characters of a prompt that even a slow address reads in a second."""
_WORKING = 0.02
"""Share of a processor that an engine which computes gets even of a crowded machine; a stuck one uses none."""
_MERELY_THERE = Health(alive=True, running=0, waiting=0, progress=0, counted=False)


class Watch:
    """Looks at every replica now and then, each at its own pace, so that one that hangs delays no other."""

    def __init__(self, router: Router, supervisor: Supervisor, settings: Routing) -> None:
        self._router = router
        self._supervisor = supervisor
        self._settings = settings
        self._questions: dict[Replica, asyncio.Task[Health]] = {}
        self._engines: dict[Replica, Engine] = {}
        self._loading: set[asyncio.Task[Engine]] = set()
        self._spent: dict[Replica, tuple[float, float]] = {}
        """When each engine of this machine was last looked at, and the processor time that it had used then."""

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            await recur(self._look_at_all, self._settings.health_seconds, at_once=True)
        finally:
            tasks = [*self._questions.values(), *self._loading]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_at_all(self) -> None:
        for pool in list(self._router.pools.values()):
            for replica in list(pool.replicas.values()):
                self.look(pool, replica, time.monotonic())

    def look(self, pool: ReplicaPool, replica: Replica, now: float) -> None:
        """One look at a replica: read the answer to the last question, judge, ask the next."""
        engine = self._supervisor.engine_of(replica.entry.id)
        if engine is None:
            self._without_engine(replica)
            return
        if self._engines.get(replica) is not engine:
            self._meet(pool, replica, engine, now)
        question = self._questions.get(replica)
        if question is not None and question.done():
            del self._questions[replica]
            self._hear(pool, replica, question, now)
            question = None
        if question is not None or replica.attempts:
            if replica.local and self._computes(replica, now):
                replica.pulse.beat(now)
            self._judge(pool, replica, now)
        if replica not in self._questions:
            if not replica.attempts:
                replica.pulse.rest(now)
            self._questions[replica] = asyncio.create_task(self._ask(engine))

    async def _ask(self, engine: Engine) -> Health:
        async with asyncio.timeout(_LONGEST_QUESTION_SECONDS):
            return await engine.health()

    def _without_engine(self, replica: Replica) -> None:
        """No process: one of this machine is started by the supervisor; an address is connected to here."""
        self._engines.pop(replica, None)
        if (question := self._questions.pop(replica, None)) is not None:
            question.cancel()
        if not replica.local:
            task = asyncio.create_task(self._supervisor.load(replica.entry))
            self._loading.add(task)
            task.add_done_callback(self._loaded)

    def _loaded(self, task: asyncio.Task[Engine]) -> None:
        self._loading.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), PagodaError):
            logger.debug("a replica cannot be connected to yet: %s", error.message)

    def _meet(self, pool: ReplicaPool, replica: Replica, engine: Engine, now: float) -> None:
        """A new engine has nothing to do with the faults of the one before it."""
        self._engines[replica] = engine
        replica.progress = None
        if (question := self._questions.pop(replica, None)) is not None:
            question.cancel()
        replica.pulse.beat(now, idle=True)
        if replica.local:
            replica.rise()
            pool.notice()

    def _hear(self, pool: ReplicaPool, replica: Replica, question: asyncio.Task[Health], now: float) -> None:
        """Make sense of how a question ended."""
        if question.cancelled():
            return
        fault = question.exception()
        if fault is None:
            self._take(pool, replica, question.result(), now)
        elif isinstance(fault, ModelError) and fault.code == UNREACHABLE:
            if replica.health != "dead":
                logger.warning("%s of pool %s is dead: %s", replica.id, pool.name, fault)
                replica.sink("dead", "it takes no connections")
                pool.notice()
        elif isinstance(fault, ModelError) and fault.code != STOPPED:
            self._take(pool, replica, _MERELY_THERE, now)
        elif not isinstance(fault, ModelError | TimeoutError):
            logger.error("the health of %s of pool %s cannot be read", replica.id, pool.name, exc_info=fault)

    def _take(self, pool: ReplicaPool, replica: Replica, health: Health, now: float) -> None:
        """An answer is a sign of life if work advances, or there is none to be done."""
        advanced = replica.progress is None or health.progress != replica.progress
        replica.progress, replica.answered, replica.counted = health.progress, now, health.counted
        if not health.alive:  # it asks for nothing new, and finishes what it has
            replica.breaker.rest(2 * self._settings.health_seconds, now, probe=False, reason="draining")
        if health.counted and health.running and not advanced:
            return
        if not health.counted and replica.attempts and replica.health != "dead":
            return  # that it answers says nothing of the work that it has
        replica.pulse.beat(now, idle=not health.running)
        if replica.health != "up":
            logger.info("%s of pool %s is back", replica.id, pool.name)
            replica.rise(trusted=health.counted or replica.health == "dead")
            pool.notice()

    def _computes(self, replica: Replica, now: float) -> bool:
        """Whether an engine of this machine has used the processor since the last look at a busy one."""
        state = self._supervisor.states().get(replica.entry.id)
        spent = process_seconds(state.pid) if state is not None and state.pid is not None else None
        if spent is None:
            self._spent.pop(replica, None)
            return False
        looked, before = self._spent.get(replica, (now, spent))
        self._spent[replica] = (now, spent)
        return spent - before > _WORKING * min(now - looked, 2 * self._settings.health_seconds) and now > looked

    def _judge(self, pool: ReplicaPool, replica: Replica, now: float) -> None:
        answers = now - replica.answered <= replica.pulse.patience(now)
        grace = _GRACE if answers and not replica.counted else 1.0
        reading = 0.0 if replica.local else replica.unread() / _SLOWEST_READING
        if replica.pulse.look(now, grace, reading) and replica.pulse.wedged and replica.health == "up":
            logger.warning("%s of pool %s is wedged: it is connected, but nothing advances", replica.id, pool.name)
            if not replica.counted:  # nothing but a request will show that it is well again
                replica.breaker.fail("death", now, probe=False)
            replica.sink("wedged", "connected, but nothing advances")
            pool.notice()
