"""Works on a collection in processes that die at a given step: ``ACTION FOLDER HOME:STEP ...``, 0 for never.

A step is a statement or commit of the database, a request for embeddings, or a part of the index of words. Each home
has a process of its own, which kills itself; how it ended is told in a line: ``killed``, or ``done`` and its steps.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from pagoda.application.retrieving import Retrieval
from pagoda.core.storage.store import open_store
from pagoda.core.types import Call
from pagoda.logic.retrieval import lexical
from pagoda.logic.retrieval.loaded import Loaded
from tests.chaos.ingest_child import MadeUp, home, retrieval_over, take

NAME = "killed"
DELETED = ("00.md", "01.md", "02.md")


class Steps:
    """Counts, and at one of them the process is gone."""

    def __init__(self, last: int) -> None:
        self.count = 0
        self._last = last

    def step(self, *_: object) -> None:
        self.count += 1
        if self.count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, after a step."""

        def stepped(*given: Any, **named: Any) -> Any:
            self.step()
            return function(*given, **named)

        return stepped


async def act(action: str, folder: Path, place: Path) -> None:
    """Do what is asked for. ``deleted`` and ``gone`` may be done already, when they are done again."""
    settings = home(place)
    if action == "taken":
        await take(settings, folder, say=False)
        return
    async with open_store(settings) as store:
        retrieval = retrieval_over(settings, store)
        if action == "searched":
            await told(retrieval)
        elif action == "deleted":
            collection = await retrieval.book.get("local", NAME)
            await retrieval.book.remove(collection, [str(folder / name) for name in DELETED])
        elif await retrieval.book.collections("local"):
            await retrieval.book.delete("local", NAME)


async def told(retrieval: Retrieval) -> list[Any]:
    """What is found in a collection, by each method."""
    found: list[Any] = []
    for mode in ("fused", "dense", "lexical"):
        options: Any = {"mode": mode, "limit": 100}
        for question in ("Words of part 7", "第3句"):
            hits = await retrieval.searcher.search(NAME, question, Call(), **options)
            found += [(hit.passage.source, hit.passage.start, hit.passage.text, hit.score) for hit in hits]
    return found


def perish(action: str, folder: Path, place: Path, last: int) -> None:
    """Do it in this process, up to a step."""
    steps = Steps(last)
    for name in ("before_cursor_execute", "commit"):
        event.listen(Engine, name, steps.step)
    for holder, name in ((MadeUp, "embed"), (Loaded, "renewed"), (lexical, "_counted"), (lexical, "_drawn")):
        setattr(holder, name, steps.before(getattr(holder, name)))
    asyncio.run(act(action, folder, place))
    print(f"done {steps.count}", flush=True)


def main(action: str, folder: Path, places: list[str]) -> None:
    """Each home in turn."""
    for each in places:
        place, _, last = each.rpartition(":")
        child = os.fork()
        if child == 0:
            perish(action, folder, Path(place), int(last))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            print("killed", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
