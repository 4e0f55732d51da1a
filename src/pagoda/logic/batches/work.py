"""Answering the lines of a batch: several at once, no more than the engine likes, with patience for what passes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from pagoda.core.errors import Forbidden, Overloaded, PagodaError
from pagoda.core.types import PRIORITIES, Call, new_id
from pagoda.logic.batches.answers import AnswerFiles
from pagoda.logic.batches.lines import Line

Ask: TypeAlias = Callable[[Line, Call], Awaitable[Mapping[str, Any]]]
"""Gives the body of the answer to a line."""

Refuse: TypeAlias = Callable[[PagodaError], tuple[int, Mapping[str, Any]]]
"""Status and body of an error, as HTTP would have them."""

_TRIES = 8
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 15.0
_TICK_SECONDS = 0.5


class Pace:
    """How many lines are asked at once: one more after a round that went well, half when it was too much."""

    def __init__(self, start: int, most: int) -> None:
        self.limit = start
        self._most = most
        self._well = 0

    def went_well(self) -> None:
        """A line was answered."""
        self._well += 1
        if self._well >= self.limit:
            self.limit, self._well = min(self.limit + 1, self._most), 0

    def too_much(self) -> None:
        """The engine or its queue was full."""
        self.limit, self._well = max(1, self.limit // 2), 0


class Work:
    """The answering of one batch. ``tick`` is called often, from the event loop, and may raise to stop the work."""

    def __init__(
        self,
        ask: Ask,
        refuse: Refuse,
        answers: AnswerFiles,
        pace: Pace,
        tick: Callable[[], None],
        call: Call = Call(),  # noqa: B008 - a frozen value
    ) -> None:
        """``call`` says whose requests these are."""
        self._ask = ask
        self._refuse = refuse
        self._answers = answers
        self._pace = pace
        self._tick = tick
        self._call = call
        self._synced = time.monotonic()

    async def perform(self, lines: Iterable[Line], until: float | None) -> bool:
        """Answer every line that has no answer yet; ``False`` when the time (``until``, Unix time) came before."""
        asked: set[asyncio.Task[None]] = set()
        try:
            for line in lines:
                if line.custom_id in self._answers.done:
                    continue
                while len(asked) >= self._pace.limit:
                    asked = await self._wait(asked)
                if until is not None and time.time() >= until:
                    return False
                asked.add(asyncio.create_task(self._answer(line)))
            while asked:
                if until is not None and time.time() >= until:
                    return False
                asked = await self._wait(asked)
            return True
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    def expire(self, lines: Iterable[Line]) -> None:
        """Write down that the remaining lines were not answered in time."""
        problem = {"code": "batch_expired", "message": "This request was not answered before the batch's window ended."}
        for line in lines:
            if line.custom_id not in self._answers.done:
                self._answers.add(_row(line, None, problem), failed=True)

    async def _wait(self, asked: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
        done, rest = await asyncio.wait(asked, timeout=_TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if time.monotonic() - self._synced >= 1.0:
            await asyncio.to_thread(self._answers.sync)
            self._synced = time.monotonic()
        self._tick()
        return rest

    async def _answer(self, line: Line) -> None:
        request_id = new_id("req")
        try:
            status, body, failed = 200, await self._ask_patiently(line, request_id), False
        except Forbidden:
            raise  # the key of the batch has ended: what is left must not count as answered, not even with a failure
        except PagodaError as error:
            status, body = self._refuse(error)
            failed = True
        response = {"status_code": status, "request_id": request_id, "body": body}
        self._answers.add(_row(line, response, None), failed=failed)

    async def _ask_patiently(self, line: Line, request_id: str) -> Mapping[str, Any]:
        """Ask again after what may pass; a full queue is waited for as long as it takes."""
        call = replace(self._call, request_id=request_id, priority=PRIORITIES["batch"], purpose="batch")
        tries, pause = 1, _FIRST_PAUSE_SECONDS
        while True:
            try:
                body = await self._ask(line, call)
            except Overloaded:
                self._pace.too_much()
            except PagodaError as error:
                if not error.retryable or tries >= _TRIES:
                    raise
                tries += 1
            else:
                self._pace.went_well()
                return body
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def _row(line: Line, response: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"id": new_id("batch_req"), "custom_id": line.custom_id, "response": response, "error": error}
