"""A lease: the right to use a model's engine, which will not be ended meanwhile."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from pagoda.core.errors import Unavailable
from pagoda.model.catalog.entry import Adapter, ModelEntry
from pagoda.model.engines.contract import Engine
from pagoda.model.engines.openai import STOPPED

if TYPE_CHECKING:
    from pagoda.service.supervisor import Supervisor


class Leasing:
    """A block in which a lease is held. A class of its own, since a generator would cost each request its price."""

    def __init__(self, supervisor: Supervisor, model: ModelEntry) -> None:
        self._supervisor = supervisor
        self._model = model
        self._lease: Lease | None = None

    async def __aenter__(self) -> Lease:
        model, supervisor = self._model, self._supervisor
        host = await supervisor.host_of(model)
        lease = Lease(supervisor, host, await supervisor.acquire(host))
        self._lease = lease
        try:
            if isinstance(model.source, Adapter):
                await lease.engine.adopt(model)
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lease = self._lease
        if lease is None:
            return
        try:
            if isinstance(error, Unavailable) and error.code == STOPPED:
                await self._supervisor.notice_end(lease.model.id, lease.engine)
        finally:
            lease.end()


class Lease:
    """The right to use a model's engine, which will not be ended meanwhile."""

    def __init__(self, supervisor: Supervisor, model: ModelEntry, engine: Engine) -> None:
        self.engine = engine
        self.model = model
        """The model whose engine it is: an adapter's base."""
        self._supervisor = supervisor
        self._held = True

    async def replace(self) -> Engine:
        """The engine's successor, once there is one: for an engine that could not be reached."""
        await self._supervisor.successor(self.model, self.engine)
        self.end()
        self.engine = await self._supervisor.acquire(self.model)
        self._held = True
        return self.engine

    def end(self) -> None:
        """Give the right back."""
        if self._held:
            self._held = False
            self._supervisor.release(self.model.id)
