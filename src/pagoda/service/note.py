"""What is known of one HTTP request on its way to the log: a slot that the interface opens and this storey fills.

A slot rather than a field of every answer, since refusals, streams and embeddings are all told of. It carries times and
numbers, never a prompt or an answer.
"""

from __future__ import annotations

from contextvars import ContextVar
from time import perf_counter

from pagoda.core.types import CallDelta, Delta, Event, Finish, Started


class Note:
    """One request. Times are seconds by ``perf_counter``; durations are summed over all turns of the request."""

    __slots__ = (
        "asked",
        "attempts",
        "began",
        "cache",
        "cached",
        "completion",
        "engine",
        "finish",
        "first",
        "model",
        "prompt",
        "queue",
        "shared",
    )

    def __init__(self) -> None:
        self.began = perf_counter()
        self.model = ""
        self.queue = 0.0
        """Spent waiting for a turn."""
        self.engine = 0.0
        """Spent by engines, up to the end of the last that was asked."""
        self.asked: float | None = None
        """When the turn at the engine that has it now began."""
        self.first: float | None = None
        """When the first text was there."""
        self.prompt = self.completion = self.cached = 0
        self.cache = ""
        self.finish = ""
        self.attempts = 0
        self.shared = False
        """Whether it waits for an answer that another request has asked for."""

    def ask(self) -> None:
        """From now on it is the engine's time."""
        self.asked = perf_counter()

    def answered(self) -> None:
        """The engine is done."""
        if self.asked is not None:
            self.engine += perf_counter() - self.asked
            self.asked = None

    def take(self, event: Event) -> None:
        """An event of the answer passes."""
        if isinstance(event, Delta | CallDelta):
            if self.first is None:
                self.first = perf_counter()
        elif isinstance(event, Started):
            self.model, self.cache = event.model, event.cache
        elif isinstance(event, Finish):
            self.finish = event.reason
        else:
            self.prompt, self.completion, self.cached = (
                event.prompt_tokens,
                event.completion_tokens,
                event.cached_tokens,
            )

    def overhead(self) -> float | None:
        """Time so far that was neither the line's nor an engine's; ``None`` where another request's took part in it."""
        if self.shared:
            return None
        now = perf_counter()
        engine = self.engine if self.asked is None else self.engine + now - self.asked
        return max(0.0, now - self.began - self.queue - engine)


SLOT: ContextVar[Note | None] = ContextVar("pagoda_note", default=None)
"""The present request's note; ``None`` outside a request."""
