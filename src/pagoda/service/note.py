"""What is known of one HTTP request on its way to the log: a slot that the interface opens and this storey fills.

A slot rather than a field of every answer, since refusals, streams and embeddings are all told of. It carries times and
numbers, never a prompt or an answer; only of a request that is part of an experiment the first words are held until it
is over, to see whether they refuse.
"""

from __future__ import annotations

from contextvars import ContextVar
from time import perf_counter

from pagoda.core.types import CallDelta, Delta, Event, Finish, Started, new_id

OPENING = 200
PIECES = (Delta, CallDelta)
"""Events that bring more of an answer; a tuple, since a union would be made anew at each look."""
_OURS = "req-"
_OURS_LENGTH = len(_OURS) + 32


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
        "opening",
        "prompt",
        "queue",
        "request_id",
        "shared",
        "spent",
        "status",
        "trials",
    )

    def __init__(self, request_id: str = "") -> None:
        self.began = perf_counter()
        self.request_id = request_id
        self.status = 0
        """What it was answered with; 0 while it is not over."""
        self.spent = 0.0
        """Time of the whole request."""
        self.trials: set[str] | None = None
        """The experiments that it is part of."""
        self.opening = ""
        """The answer's first words, where it is part of one."""
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

    def end(self, status: int) -> None:
        """The request is over."""
        self.status, self.spent = status, perf_counter() - self.began

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
        if isinstance(event, PIECES):
            if self.first is None:
                self.first = perf_counter()
            if self.trials is not None and isinstance(event, Delta) and len(self.opening) < OPENING:
                self.opening += event.text[:OPENING]
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


def answer_id(prefix: str) -> str:
    """An identifier for the answer to the present request: of an id that is ours its random part, so that either tells
    of the other; else, and outside a request, a fresh one.
    """
    note = SLOT.get()
    if note is None or len(note.request_id) != _OURS_LENGTH or not note.request_id.startswith(_OURS):
        return new_id(prefix)
    return f"{prefix}-{note.request_id[len(_OURS) :]}"


def request_of(answer: str) -> str:
    """The request that an id names: itself, or what an answer's id was made of."""
    prefix, _, rest = answer.partition("-")
    return _OURS + rest if prefix in ("chatcmpl", "cmpl", "resp", "msg") and len(rest) == 32 else answer
