"""Texts of different requests embedded together: what comes while one pass runs goes into the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeAlias

Ids: TypeAlias = Sequence[int]
Asked: TypeAlias = tuple[Sequence[Ids], asyncio.Future[list[bytes]]]

Wanted: TypeAlias = Callable[[], bool]

_LARGEST_PASS = 256


class Gathering:
    """Puts the inputs of concurrent requests into one call of ``embed``, which blocks and takes any number.

    ``embed`` may ask now and then whether anybody still waits for it, and give anything when nobody does.
    """

    def __init__(self, embed: Callable[[Sequence[Ids], Wanted], list[bytes]]) -> None:
        self._embed = embed
        self._waiting: list[Asked] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> int:
        """Requests that wait for a pass."""
        return len(self._waiting)

    async def embed(self, inputs: Sequence[Ids]) -> list[bytes]:
        """Vectors in the order of the inputs. A request that is cancelled before its pass begins costs nothing."""
        answer: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()
        self._waiting.append((inputs, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        while self._waiting:
            together = self._next()
            if not await self._pass(together) and len(together) > 1:
                for each in together:  # one of them is at fault; the others need not suffer for it
                    await self._pass([each])

    async def _pass(self, together: Sequence[Asked]) -> bool:
        """One call for these requests. When it fails, a lone request is told so and several are not told yet."""
        try:
            inputs_of_all = [ids for inputs, _ in together for ids in inputs]
            vectors = await asyncio.to_thread(self._embed, inputs_of_all, lambda: not _left(together))
        except Exception as error:  # noqa: BLE001  (whatever it is, it is told to the request that it concerns)
            if len(together) == 1 and not together[0][1].done():
                together[0][1].set_exception(error)
            return False
        place = 0
        for inputs, answer in together:
            if not answer.done():
                answer.set_result(vectors[place : place + len(inputs)])
            place += len(inputs)
        return True

    def _next(self) -> list[Asked]:
        """The requests of the next pass, first come first, whole."""
        taken: list[Asked] = []
        size = 0
        while self._waiting and (not taken or size + len(self._waiting[0][0]) <= _LARGEST_PASS):
            inputs, answer = self._waiting.pop(0)
            if not answer.done():
                taken.append((inputs, answer))
                size += len(inputs)
        return taken


def _left(together: Sequence[Asked]) -> bool:
    """Whether all of these requests are over."""
    return all(answer.done() for _, answer in together)
