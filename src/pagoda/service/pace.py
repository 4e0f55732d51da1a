"""How fast one answer comes: its first text, the time between its pieces, its end. One look at the clock a piece."""

from __future__ import annotations

from time import perf_counter

from pagoda.core.types import CacheUse, Event, Finish, Started, Usage
from pagoda.service.note import PIECES, SLOT
from pagoda.service.telemetry import Telemetry


class Pace:
    """One answer. It is told every event as it passes."""

    __slots__ = (
        "_began",
        "_computed",
        "_first",
        "_gaps",
        "_last",
        "_model",
        "_note",
        "_pieces",
        "_telemetry",
    )

    def __init__(self, telemetry: Telemetry, model: str) -> None:
        self._telemetry = telemetry
        self._model = model
        self._gaps = telemetry.token_gaps.tally(model)
        self._began = perf_counter()
        self._first = self._last = 0.0
        self._pieces = 0
        self._computed = True
        self._note = SLOT.get()
        if self._note is not None:
            self._note.model = model

    def note(self, event: Event) -> None:
        """An event passes."""
        if isinstance(event, PIECES):
            now = perf_counter()
            if self._pieces == 0:
                self._first = now
                self._telemetry.first_token.tally(self._model).observe(now - self._began)
                if self._note is not None:
                    self._note.first = now
            elif self._computed:
                self._gaps.observe(now - self._last)
            self._last = now
            self._pieces += 1
            return
        if self._note is not None:
            self._note.take(event)
        if isinstance(event, Started):
            self._computed = event.cache != "hit"
        elif isinstance(event, Finish):
            self._telemetry.finished.count(self._model, event.reason).inc()
        elif self._computed:
            count_tokens(self._telemetry, self._model, event)

    def end(self) -> None:
        """The answer is whole."""
        gap = (self._last - self._first) / (self._pieces - 1) if self._pieces > 1 else 0.0
        if self._first - self._began <= self._telemetry.bounds.first and gap <= self._telemetry.bounds.gap:
            self._telemetry.goodput.count(self._model).inc()


def count_tokens(telemetry: Telemetry, model: str, usage: Usage) -> None:
    """Count the tokens of an answer that was computed."""
    count = telemetry.tokens.count
    count(model, "prompt").inc(usage.prompt_tokens)
    count(model, "completion").inc(usage.completion_tokens)
    count(model, "cached").inc(usage.cached_tokens)


def note_usage(model: str, prompt: int, cache: CacheUse) -> None:
    """Tell the present request's note of an answer that came at once."""
    if (note := SLOT.get()) is not None:
        note.model, note.prompt, note.cache = model, prompt, cache
