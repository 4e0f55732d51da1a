"""The platform: everything of one process wired together from settings. The only place where that happens.

The first process of a ``PAGODA_HOME`` owns the engines; further ones join it over loopback and serve the same door.
Not here: what the home holds whoever owns the engines (``holdings``).
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pagoda.application.calibration import calibration_path
from pagoda.application.counting import Counting
from pagoda.application.holdings import Holdings
from pagoda.application.joining import find_or_start, hold_lease, wait_for_owner
from pagoda.application.learning import Learning
from pagoda.application.statuses import statuses_of
from pagoda.core.errors import Conflict, PagodaError
from pagoda.core.settings import Settings
from pagoda.core.types import Call, Embed, Embeddings
from pagoda.interface.context import ModelStatus
from pagoda.interface.turnstile import Gate
from pagoda.logic.inference.door import Door
from pagoda.logic.inference.joined import JoinedDoor
from pagoda.model.catalog.identity import ModelIdentities
from pagoda.model.catalog.inspection import complete_entry
from pagoda.model.engines.choice import CATALOG_SAYS, choose_for
from pagoda.service.cache.opening import open_cache, open_semantic
from pagoda.service.cache.responses import ResponseCache
from pagoda.service.cache.store import Scope
from pagoda.service.contents.recorder import Recorder
from pagoda.service.dispatch import ModelService, check_generation
from pagoda.service.host import StartGround
from pagoda.service.lifecycle import Lifecycle, Order, Step, follow
from pagoda.service.limits.limiter import Limiter
from pagoda.service.limits.opening import open_limiter
from pagoda.service.presence import Notice, Presence
from pagoda.service.routing.router import Router
from pagoda.service.routing.steering import PoolOrder, Steering, open_steering
from pagoda.service.supervisor import Supervisor

logger = logging.getLogger(__name__)


class Platform(Holdings):
    """What stands behind the interface of this process: what the home holds, and the engines, its own or another's."""

    def __init__(
        self, settings: Settings, environment: Mapping[str, str], *, embedded: bool = False, seated: bool = False
    ) -> None:
        super().__init__(settings)
        self.contents = Recorder(settings.log, self.records, lambda: self._records.exist)
        self.learning = Learning(settings, self.telemetry, self._records, self._flush, lambda: self.inference)
        self.prompts.chooser = self.learning.roster.version_of
        self.counting = Counting(self.telemetry, lambda: self.keys.fresh)
        self.write_line: Callable[[bytes], None] | None = None
        self.internal_key = ""
        self.gate = Gate()
        self.closing = asyncio.Event()
        self.leases = 0
        self.left = asyncio.Event()
        """Set whenever a process that had joined has left."""
        self._environment = environment
        self._embedded = embedded
        self._seated = seated
        self._presence = Presence(settings.home)
        self._supervisor: Supervisor | None = None
        self._service: ModelService | None = None
        self._lifecycle: Lifecycle | None = None
        self._routing: Steering | None = None
        self._preloading: asyncio.Task[None] | None = None
        self._cache: ResponseCache | None = None
        self._limiter: Limiter | None = None
        self._semantic_said = ""
        self._joined: JoinedDoor | None = None
        self._lease: asyncio.Task[None] | None = None
        self._resumption: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Own the engines of this home, or join the process that does."""
        await self.keys.start()
        await self.learning.start()
        await self.prompts.start()
        if not self._seated and await asyncio.to_thread(self._presence.claim):
            self.internal_key = secrets.token_urlsafe(32)
            ground = StartGround(
                locate=self.shelf.store.locate,
                logs=self.settings.home / "logs",
                environment=self._environment,
                start_seconds=self.settings.engines.start_seconds,
                find=self.shelf.catalog.find,
            )
            self._supervisor = Supervisor(ground, self.settings.engines)
            identify = ModelIdentities(self.shelf.store, self.shelf.catalog.find).of
            semantic, self._semantic_said = open_semantic(
                self.settings.cache, self.calibration_path, self.settings.defaults.embedding, self._embedded_text
            )
            self._cache = open_cache(self.settings.cache, identify, self._supervisor.room, self.telemetry, semantic)
            self._limiter = open_limiter(self.settings, self.records, self.telemetry, self.keys)
            self._limiter.start()
            router = Router(self._supervisor, self.telemetry, self.settings.routing, check_generation)
            access, admission = (self.keys, self._limiter), self.settings.admission
            self._service = ModelService(
                self.shelf.catalog, self._supervisor, self.telemetry, self._cache, admission, access, router
            )
            self._routing = open_steering(self.settings, router, self._supervisor, self.shelf.catalog.refer)
            self._routing.start()
            self._lifecycle = Lifecycle(self._supervisor, self.shelf.store.state, self.shelf.store.pull)
            self._preloading = asyncio.create_task(self._preload(self._supervisor))
            self.inference = Door(self._service, self.contents, self.learning.watch)
            self.contents.start()
            return
        if self._seated:  # one of several workers: the captain starts the owner again
            joined = JoinedDoor(lambda: wait_for_owner(self.settings))
        else:
            joined = JoinedDoor(lambda: find_or_start(self.settings, self._environment))
        self._joined = self.inference = joined
        self._lease = asyncio.create_task(hold_lease(joined, self.counting.name))
        self.counting.join(joined)
        logger.info("joined the service process of %s", self.settings.home)

    @property
    def calibration_path(self) -> Path:
        """Where ``pagoda cache calibrate`` keeps what it found."""
        return calibration_path(self.settings)

    async def _embedded_text(self, tenant: str, text: str) -> Embeddings:
        """A question's vector for the semantic cache, which knows no door."""
        model = self.entry(None, "embedding").id
        wanted = Embed(model=model, inputs=(text,), kind="query")
        return await self.inference.embed(wanted, Call(tenant=tenant, purpose="internal"))

    @property
    def owns_engines(self) -> bool:
        """Whether the engines are this process's children."""
        return self._supervisor is not None

    def publish(self, url: str) -> None:
        """Tell other processes where to join (only the owner is joined)."""
        if self.owns_engines:
            self._presence.publish(Notice(url=url, key=self.internal_key, pid=os.getpid(), embedded=self._embedded))
            self._resumption = asyncio.create_task(self.resume_batches())  # not before they can join this process

    def withdraw(self) -> None:
        """Have other processes start a service of their own rather than join this one, which is about to end."""
        self._presence.withdraw()

    async def stop(self) -> None:
        """End the engines, or leave the process that was joined."""
        self.closing.set()
        await self.leave_desk()
        await self.counting.close()
        for task in (self._lease, self._preloading, self._resumption):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        writers = (self._limiter, self.keys, self.learning, self.prompts, self.contents)
        for part in (*writers, self._records, self._joined, self._cache, self._routing, self._supervisor):
            if part is not None:
                await part.close()
        self._presence.release()

    async def _preload(self, supervisor: Supervisor) -> None:
        """Load the models that settings name, one after another; one that fails does not keep the others away."""
        models = self.settings.models
        for name in dict.fromkeys((*models.pinned, *models.preload)):
            try:
                entry = self.shelf.catalog.refer(name)
                if name in models.pinned:
                    supervisor.keep(entry, pinned=True)
                await supervisor.load(entry)
            except PagodaError as error:
                logger.error("%s was not loaded at start: %s", name, error)

    async def steer(self, order: Order) -> AsyncIterator[Step]:
        """Load or unload a model, here or in the process that owns the engines."""
        if self._joined is not None:
            steps = self._joined.steer(order)
        elif self._lifecycle is not None:
            steps = self._lifecycle.carry_out(self.shelf.catalog.refer(order.model), order)
        else:
            raise RuntimeError("the platform is started before it is steered")
        async with aclosing(steps):  # type: ignore[type-var]
            async for step in steps:
                yield step

    def watch_models(self) -> AsyncIterator[Step]:
        """Every change of a model's state in this process; another's are watched there."""
        if self._supervisor is None:
            raise Conflict("This process owns no engines; watch the one that does.")
        return follow(self._supervisor)

    async def memory(self) -> dict[str, Any]:
        """The budget and what of it is set aside, bytes in each pool."""
        if self._joined is not None:
            return await self._joined.memory()
        if self._supervisor is None:
            return {}
        return {"budget": asdict(self._supervisor.budget), "held": asdict(self._supervisor.held)}

    async def feature(self, reference: str) -> str:
        """Make a model, by id, path or hub's id, the default of its task; gives a line on the engine that runs it.

        Raises ``Conflict`` where another process owns the engines, and what the model's files or engine lack.
        """
        if not self.owns_engines:
            raise Conflict(
                f"Another service of {self.settings.home} runs already; stop it, or give this one a PAGODA_HOME of its "
                "own to serve another model.",
                param="model",
            )
        entry = self.shelf.catalog.refer(reference)
        path = await asyncio.to_thread(self.shelf.store.locate, entry)
        choice = choose_for(entry, path)
        if choice.reason != CATALOG_SAYS and path is not None:
            entry = self.shelf.catalog.lend(replace(complete_entry(entry, path), engine=choice.engine))
        field = "embedding" if entry.task == "embedding" else "chat"
        defaults = replace(self.settings.defaults, **{field: entry.id})
        self.settings = replace(self.settings, defaults=defaults)
        return f"{entry.id}: {choice.reason}: {choice.engine}"

    async def demand_keys(self) -> str | None:
        """Refuse requests without a key from now on; gives the secret of an admin key where there was none."""
        self.keys.demand()
        if self.settings.keys.admin_key:
            return None
        issued = await self.book.ensure_admin()
        await self.refresh_keys()
        return None if issued is None else issued.secret

    async def refresh_keys(self, changed: str | None = None) -> None:
        """Have keys renewed here, and in the process that owns the engines, after one (or an unknown one) changed."""
        if changed is not None:
            self.keys.forget(changed)
        await self.keys.refresh(warm=True)
        if self._joined is not None:
            await self._joined.renew_keys()

    async def models(self) -> Sequence[ModelStatus]:
        """All models with the state of their files and engines."""
        engines = await self.states()
        pulling = () if self._lifecycle is None else self._lifecycle.pulling
        return await asyncio.to_thread(statuses_of, self.shelf, engines, frozenset(pulling))

    async def states(self) -> dict[str, Any]:
        """Engine states by model id."""
        if self._joined is not None:
            return await self._joined.states()
        known = {} if self._service is None else self._service.states()
        return {model_id: asdict(state) for model_id, state in known.items()}

    async def cache_state(self) -> dict[str, Any]:
        """What the response cache holds, as JSON."""
        if self._joined is not None:
            return await self._joined.cache_state()
        return {} if self._cache is None else asdict(await self._cache.state()) | {"semantic": self._semantic_said}

    async def purge_cache(self, tenant: str | None, model: str | None) -> dict[str, Any]:
        """Forget cached answers of a tenant, a model (by id or alias), both or all."""
        if self._joined is not None:
            return await self._joined.purge_cache(tenant, model)
        scope = Scope(tenant, None if model is None else self.shelf.catalog.resolve(model).id)
        return {} if self._cache is None else asdict(await self._cache.purge(scope))

    async def usage(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """What was used, up to now where this process counts it; else up to what that one has written."""
        from pagoda.service.limits.report import Question, usage_report  # noqa: PLC0415  (it brings the database)

        await self._flush()
        return await usage_report(await self.records(), Question(**question), self.settings.prices.currency)

    async def _flush(self) -> None:
        """Write what this process holds of calls that are over."""
        if self._limiter is not None:
            await self._limiter.books.flush()
        await self.contents.flush()

    async def pools(self) -> list[dict[str, Any]]:
        """All pools with their replicas, as JSON."""
        if self._joined is not None:
            return await self._joined.pools()
        return [] if self._routing is None else self._routing.pools()

    async def steer_pool(self, order: PoolOrder) -> dict[str, Any]:
        """Add, remove, drain or resume a replica, here or in the process that owns the engines."""
        if self._joined is not None:
            return await self._joined.steer_pool(order)
        if self._routing is None:
            raise RuntimeError("the platform is started before it is steered")
        return self._routing.carry_out(order)

    async def metrics(self) -> bytes:
        """The metrics of all processes of this home, in Prometheus's text format."""
        return await self.counting.expose(self._service)

    def lease(self, name: str = "") -> Callable[[], None]:
        """Note that another process has joined."""
        self.leases += 1

        def leave() -> None:
            self.telemetry.fleet.leave(name)
            self.leases -= 1
            self.left.set()

        return leave
