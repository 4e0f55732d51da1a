"""Following a run by its files, from any process: what a terminal shows and what HTTP streams.

The work knows nothing of its watchers, and they may come and go.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass

from pagoda.core.errors import InvalidRequest
from pagoda.core.runs import files
from pagoda.core.runs.directory import RunDirectory
from pagoda.core.runs.record import Progress
from pagoda.core.types import Json

POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that happened in a run.

    ``type`` is ``status``, ``progress`` (``stage, done, total``), ``metric`` (``step, attempt, values``), a word of
    the work's own, or, last of all, ``end`` (``status, error, result``). ``id`` names the place in the files, for a
    watcher that comes back; ``time`` is ISO 8601.
    """

    type: str
    time: str
    data: Mapping[str, Json]
    id: str

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return {"type": self.type, "time": self.time, "data": dict(self.data), "id": self.id}


class Follower:
    """Where one watcher stands in the files of a run."""

    def __init__(self, directory: RunDirectory, *, after: str | None = None) -> None:
        self._directory = directory
        self._events, self._metrics = _parse_place(after)
        self._progress: Progress | None = None
        self.ended = False

    def poll(self) -> list[RunEvent]:
        """What is new. After the event ``end``, ``ended`` is true and nothing follows.

        Raises ``NotFound`` when the run's directory has been deleted.
        """
        run = self._directory.read()  # before the lines: what was written before its end is then complete
        found = self._new_lines()
        if run.progress is not None and run.progress != self._progress:
            self._progress = run.progress
            data = {"stage": run.progress.stage, "done": run.progress.done, "total": run.progress.total}
            found.append(RunEvent("progress", run.progress.at.isoformat(), data, self._place()))
        if run.ended:
            self.ended = True
            moment = run.finished or run.created
            data = {"status": run.status, "error": run.error, "result": run.result}
            found.append(RunEvent("end", moment.isoformat(), data, self._place()))
        return found

    def skip(self) -> str:
        """Pass over all lines there are; gives the place reached."""
        self._new_lines()
        return self._place()

    def _new_lines(self) -> list[RunEvent]:
        found: list[RunEvent] = []
        while True:
            events, self._events = files.read_lines(self._directory.events, self._events)
            metrics, self._metrics = files.read_lines(self._directory.metrics, self._metrics)
            if not events and not metrics:
                return found
            happened = [(line["time"], line["type"], line["data"]) for line in events if _is_event(line)]
            measured = [
                (line["time"], "metric", {key: line.get(key) for key in ("step", "attempt", "values")})
                for line in metrics
                if isinstance(line, dict) and isinstance(line.get("time"), str)
            ]
            place = self._place()
            merged = heapq.merge(happened, measured, key=lambda entry: entry[0])
            found += [RunEvent(kind, moment, data, place) for moment, kind, data in merged]

    def _place(self) -> str:
        return f"{self._events}-{self._metrics}"


def watch(directory: RunDirectory, *, after: str | None = None) -> Iterator[RunEvent]:
    """The events of a run until it ends."""
    follower = Follower(directory, after=after)
    while True:
        yield from follower.poll()
        if follower.ended:
            return
        time.sleep(POLL_SECONDS)


async def watch_async(directory: RunDirectory, *, after: str | None = None) -> AsyncIterator[RunEvent]:
    """The events of a run until it ends, without blocking the event loop."""
    follower = Follower(directory, after=after)
    while True:
        for event in await asyncio.to_thread(follower.poll):
            yield event
        if follower.ended:
            return
        await asyncio.sleep(POLL_SECONDS)


def place_now(directory: RunDirectory) -> str:
    """The id to watch ``after`` in order to see only what happens from now on."""
    return Follower(directory).skip()


def _parse_place(after: str | None) -> tuple[int, int]:
    if after is None:
        return 0, 0
    events, _, metrics = after.partition("-")
    if not (events.isascii() and events.isdigit() and metrics.isascii() and metrics.isdigit()):
        raise InvalidRequest(f"{after!r} is not the id of an event of a run.", param="after")
    return int(events), int(metrics)


def _is_event(line: Json) -> bool:
    return (
        isinstance(line, dict)
        and isinstance(line.get("time"), str)
        and isinstance(line.get("type"), str)
        and isinstance(line.get("data"), dict)
    )
