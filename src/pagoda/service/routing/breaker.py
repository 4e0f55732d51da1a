"""A replica's circuit: closed, open, half open. Rules only; the clock is the caller's.

What a request did wrong itself never counts. An engine that is merely full *rests* for as long as it asks, whatever the
circuit's state. Deaths, timeouts and other failures are counted apart, each in a row and with its own threshold.

::

            enough in a row                 time is up
    closed ─────────────────▶ open ─────────────────────▶ half open ── one request probes
      ▲                         ▲                             │
      │          answered       └──────── failed again ───────┤   (open for twice as long)
      └───────────────────────────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

State: TypeAlias = Literal["closed", "open", "half_open"]
Fault: TypeAlias = Literal["death", "timeout", "failure"]
STATES: tuple[State, ...] = ("closed", "open", "half_open")

_LONGEST_OPEN_SECONDS = 60.0


class Breaker:
    """The circuit of one replica. ``thresholds`` says how many faults of a kind in a row open it."""

    def __init__(self, thresholds: Mapping[Fault, int], open_seconds: float) -> None:
        self._thresholds = thresholds
        self._open_seconds = open_seconds
        self._counts: dict[Fault, int] = dict.fromkeys(thresholds, 0)
        self._opened: float | None = None
        self._duration = open_seconds
        self._probing = False
        self._resting = 0.0
        self.reason = ""
        """Why it last opened."""
        self.resting_for = ""
        """Why it last rested."""

    def state(self, now: float) -> State:
        """What it is at this time."""
        if self._opened is None:
            return "closed"
        return "half_open" if now >= self._opened + self._duration else "open"

    def allows(self, now: float) -> bool:
        """Whether a request may be sent now; a half-open circuit takes one at a time."""
        if now < self._resting:
            return False
        if self._opened is None:
            return True
        return now >= self._opened + self._duration and not self._probing

    def resumes(self, now: float) -> float:
        """Seconds until it may take a request again, if nothing else happens."""
        until = self._resting if self._opened is None else max(self._resting, self._opened + self._duration)
        return max(until - now, 0.0)

    def begin(self, now: float) -> bool:
        """A request is sent; gives whether it is the probe of a half-open circuit."""
        if self.state(now) == "half_open" and not self._probing:
            self._probing = True
            return True
        return False

    def abandon(self, probe: bool) -> None:
        """A request has ended without saying anything about the replica (its client left, or was at fault)."""
        if probe:
            self._probing = False

    def succeed(self, probe: bool) -> None:
        """The replica answered: with an answer, or by refusing what no replica would take."""
        if self._opened is not None and not probe:
            return  # sent before it opened: says nothing about now
        self._probing = False
        self._opened, self._duration = None, self._open_seconds
        self._counts = dict.fromkeys(self._counts, 0)

    def rest(self, seconds: float, now: float, probe: bool, reason: str = "full") -> None:
        """The replica is full, or asks to be left alone for a while: it is there, so the circuit does not open."""
        self.resting_for = reason
        self._resting = max(self._resting, now + seconds)
        self.succeed(probe)

    def fail(self, fault: Fault, now: float, probe: bool) -> None:
        """A request failed by the replica's fault."""
        if self._opened is not None:
            if probe:
                self._probing = False
                self._opened, self._duration = now, min(self._duration * 2, _LONGEST_OPEN_SECONDS)
                self.reason = fault
            return
        self._counts[fault] += 1
        if self._counts[fault] >= self._thresholds[fault]:
            self._opened, self.reason = now, fault

    def reset(self) -> None:
        """The replica is known to be well again (a new process, an operator's word)."""
        self._opened, self._duration, self._probing, self._resting = None, self._open_seconds, False, 0.0
        self._counts = dict.fromkeys(self._counts, 0)
