"""A budget of retries: a share of the requests beyond a small constant, so that trouble does not multiply itself."""

from __future__ import annotations

_CONSTANT = 10.0
_PER_SECOND = 1.0


class RetryBudget:
    """Each request earns ``share`` of a retry; ``_CONSTANT`` are there from the start and slowly come back.

    So over any time t, retries <= constant + share x requests + t x one a second.
    """

    def __init__(self, share: float, now: float) -> None:
        self._share = share
        self._left = _CONSTANT
        self._most = max(_CONSTANT, 100 * share)
        self._since = now

    def earn(self) -> None:
        """A request has come."""
        self._left = min(self._left + self._share, self._most)

    def spend(self, now: float) -> bool:
        """Whether one more retry is allowed; if so it is counted."""
        self._left = min(self._left + (now - self._since) * _PER_SECOND, max(self._left, _CONSTANT))
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
