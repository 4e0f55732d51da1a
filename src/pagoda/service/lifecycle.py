"""Loading and unloading models on an operator's word, and telling how far that has come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from pagoda.core.errors import Conflict, NotFound, Unavailable
from pagoda.core.ports import Progress
from pagoda.model.catalog.entry import ModelEntry
from pagoda.model.catalog.network import OFFLINE
from pagoda.model.catalog.store import FileState
from pagoda.service.supervisor import StateChange, Supervisor

_SHOW_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an operator wants of a model."""

    action: Literal["load", "unload"]
    model: str
    pull: bool = False
    """Fetch the model's files first when they are not here."""
    pinned: bool | None = None
    """Whether it may leave memory for others; ``None`` leaves that as it is."""
    keep_alive: float | None = None
    """Idle time after which it leaves memory, seconds; 0 means never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How far an order has come: the model's state, and while ``pulling`` the bytes."""

    model: str
    state: str
    reason: str = ""
    stage: str = ""
    done: int = 0
    total: int | None = None
    at: float = 0.0


class Lifecycle:
    """Carries out orders. ``file_state`` and ``pull`` are the model store's, blocking."""

    def __init__(
        self,
        supervisor: Supervisor,
        file_state: Callable[[ModelEntry], FileState],
        pull: Callable[[ModelEntry, Progress], object],
    ) -> None:
        self._supervisor = supervisor
        self._file_state = file_state
        self._pull = pull
        self.pulling: dict[str, Step] = {}
        """Models whose files are being fetched, by id."""

    async def carry_out(self, model: ModelEntry, order: Order) -> AsyncIterator[Step]:
        """Steps until it is done. Raises ``Unavailable`` when it cannot be; closing the iterator gives up waiting,
        what has begun goes on."""
        if order.action == "unload":
            if model.id not in self._supervisor.states():
                raise NotFound(f"{model.id} is not in memory.", code="not_loaded", param="model")
            steps = self._follow(model, self._supervisor.unload(model.id))
        else:
            files = await asyncio.to_thread(self._file_state, model)
            if files.state in ("absent", "broken") and not order.pull:
                raise Conflict(
                    f"The files of {model.id} are {files.state}; run `pagoda models pull {model.id}`, or pull with it.",
                    code=f"model_{files.state}",
                    param="pull",
                )
            if files.state in ("absent", "broken"):
                async with aclosing(self._fetch(model)) as fetching:  # type: ignore[type-var]
                    async for step in fetching:
                        yield step
            steps = self._follow(model, self._load(model, order))
        async with aclosing(steps):  # type: ignore[type-var]
            async for step in steps:
                yield step

    async def _load(self, model: ModelEntry, order: Order) -> None:
        async with self._supervisor.lease(model):  # so that it cannot leave before it is pinned
            self._supervisor.keep(model, pinned=order.pinned, seconds=order.keep_alive)

    async def _follow(self, model: ModelEntry, work: Coroutine[Any, Any, None]) -> AsyncIterator[Step]:
        """The model's changes of state while the work is done; its last state in any case."""
        with self._supervisor.watched() as changes:
            task = asyncio.create_task(work)
            try:
                while not task.done():
                    change = asyncio.ensure_future(changes.get())
                    await asyncio.wait((task, change), return_when=asyncio.FIRST_COMPLETED)
                    if change.done() and change.result().model == model.id:
                        yield _step(change.result())
                    change.cancel()
                while not changes.empty():
                    if (left := changes.get_nowait()).model == model.id:
                        yield _step(left)
                await task
            finally:
                task.cancel()
        state = self._supervisor.states()[model.id]
        yield Step(model=model.id, state=state.state, reason=state.reason, stage="done", at=time.time())

    async def _fetch(self, model: ModelEntry) -> AsyncIterator[Step]:
        """Bring the files, which takes threads; bytes are told a few times a second."""
        now = [Step(model=model.id, state="pulling", at=time.time())]

        def note(stage: str, done: int, total: int | None) -> None:
            now[0] = Step(model=model.id, state="pulling", stage=stage, done=done, total=total, at=time.time())
            self.pulling[model.id] = now[0]

        self.pulling[model.id] = now[0]
        task = asyncio.create_task(asyncio.to_thread(self._pull, model, note))
        task.add_done_callback(lambda _: self.pulling.pop(model.id, None))
        while not task.done():
            yield now[0]
            await asyncio.wait((task,), timeout=_SHOW_SECONDS)
        try:
            await task
        except Unavailable as error:
            if error.code != OFFLINE:
                raise
            raise Conflict(error.message, code=OFFLINE, param="pull") from error  # it is the operator's own word


async def follow(supervisor: Supervisor) -> AsyncIterator[Step]:
    """Every change of a model's state from now on."""
    with supervisor.watched() as changes:
        while True:
            yield _step(await changes.get())


def _step(change: StateChange) -> Step:
    return Step(model=change.model, state=change.state, reason=change.reason, at=change.at)
