"""Telling a wedged engine from a busy one: silence is compared with the engine's own recent pace. Rules only.

A *beat* is any sign that work advances: a token on one of our streams, a health answer whose counter has grown, or any
health answer of an engine that has nothing to do.
"""

from __future__ import annotations

_FACTOR = 3.0
_HALF_LIFE_SECONDS = 60.0
_LONGEST_PATIENCE_SECONDS = 120.0


class Pulse:
    """The beats of one replica. ``floor`` is the shortest silence (seconds) that means anything."""

    def __init__(self, floor: float, misses: int, now: float) -> None:
        self._floor = floor
        self._needed = misses
        self._last = now
        self._worst = 0.0
        self._worst_at = now
        self.missed = 0

    @property
    def wedged(self) -> bool:
        """Whether it has missed so often that it counts as stuck."""
        return self.missed >= self._needed

    def beat(self, now: float, *, idle: bool = False) -> None:
        """Work has advanced. The gap before it becomes part of the pace, unless there was nothing to do."""
        gap = now - self._last
        if gap * _FACTOR < self._floor and not self.missed:  # far from what changes anything; so is nearly every token
            self._last = now
            return
        if self.wedged:  # a pause that counted as the end teaches some patience, not that such pauses are usual
            gap = min(gap, self.patience(now) / 2)
        self._last, self.missed = now, 0
        if not idle and gap >= self._pace(now):
            self._worst, self._worst_at = gap, now

    def rest(self, now: float) -> None:
        """Nothing is to be done: silence does not count."""
        self._last = now

    def look(self, now: float, grace: float = 1.0, more: float = 0.0) -> bool:
        """Once each interval while the replica owes a sign of life; gives whether this one was a miss.

        ``grace`` stretches the patience and ``more`` adds seconds to it where silence has another reason than being
        stuck.
        """
        late = now - self._last > self.patience(now) * grace + min(more, _LONGEST_PATIENCE_SECONDS)
        self.missed = self.missed + 1 if late else self.missed
        return late

    def patience(self, now: float) -> float:
        """The silence that is still usual."""
        return min(max(self._floor, _FACTOR * self._pace(now)), _LONGEST_PATIENCE_SECONDS)

    def _pace(self, now: float) -> float:
        """The longest recent gap; half of it is forgotten each minute."""
        return float(self._worst * 0.5 ** ((now - self._worst_at) / _HALF_LIFE_SECONDS))
