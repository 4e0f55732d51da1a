"""Rates and concurrency, as a pure core: no clock, no task, no store; time comes in as seconds that only grow.

A sliding log: what was granted stays in its account's log for exactly one minute, so at most N are granted in any
minute, wherever it begins. A call's tokens count at the moment when it was granted, first its worst case, once it is
settled what it used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from pagoda.service.limits.account import Account, Ask, Refusal, Standing

WINDOW = 60.0
UNBOUNDED = Standing()
BUSY_SECONDS = 1.0
"""After this a refused call may find one of the concurrent ones ended; nobody knows better."""


class Grant:
    """A call that was let in; given back with ``Meter.settle``."""

    __slots__ = ("accounts", "at", "counts", "expires", "id", "open", "standing", "tallies", "tokens")

    def __init__(self, grant_id: str, at: float, expires: float, ask: Ask) -> None:
        self.id = grant_id
        self.at = at
        self.expires = expires
        self.tokens = ask.most
        self.counts = ask.counts
        self.open = True
        self.accounts: tuple[Account, ...] = ()
        self.tallies: tuple[Tally, ...] = ()
        self.standing = UNBOUNDED


class Tally:
    """The last minute of one account, and how many of its calls are under way."""

    __slots__ = ("id", "log", "open", "requests", "tokens")

    def __init__(self, account_id: str) -> None:
        self.id = account_id
        self.log: deque[Grant] = deque()
        self.requests = 0
        self.tokens = 0
        self.open = 0

    def forget(self, now: float) -> None:
        """Let go of what is a minute old."""
        log, edge = self.log, now - WINDOW
        while log and log[0].at <= edge:
            gone = log.popleft()
            self.requests -= gone.counts
            self.tokens -= gone.tokens

    def wait_for(self, now: float, requests: int, tokens: int) -> float:
        """Seconds until that many requests and tokens have left the log."""
        for grant in self.log:
            requests -= grant.counts
            tokens -= grant.tokens
            if requests <= 0 and tokens <= 0:
                return min(WINDOW, max(0.0, WINDOW - (now - grant.at)))
        return WINDOW

    def check(self, account: Account, ask: Ask, now: float) -> Refusal | int:
        """How many tokens it may have, between the least and the most that were asked for; or why it may not."""
        limits, counts = account.limits, ask.counts
        most = limits.requests_per_minute
        if most is not None and counts and self.requests >= most:
            wait = self.wait_for(now, self.requests - most + 1, 0) if most else None
            return Refusal(self.id, "requests", most, self.requests, 1, wait)
        most = limits.concurrent
        if most is not None and counts and self.open >= most:
            return Refusal(self.id, "concurrent", most, self.open, 1, BUSY_SECONDS if most else None)
        most = limits.tokens_per_minute
        if most is None:
            return ask.most
        left = most - self.tokens
        if ask.least > left:
            wait = self.wait_for(now, 0, ask.least - left) if ask.least <= most else None
            return Refusal(self.id, "tokens", most, self.tokens, ask.least, wait)
        return min(ask.most, left)


Decision: TypeAlias = Grant | Refusal


class Meter:
    """All accounts of one place, and the calls under way."""

    def __init__(self, lease: float = float("inf")) -> None:
        self._lease = lease
        self._tallies: dict[str, Tally] = {}
        self._now = 0.0
        self.grants: dict[str, Grant] = {}
        """Those that are not settled, by id, in the order in which they expire."""

    def reserve(self, grant_id: str, accounts: Sequence[Account], ask: Ask, now: float) -> Decision:
        """Let a call in under all of its accounts, with as many of the tokens as there are; or under none."""
        now = self._at(now)
        for account in accounts:
            tally = self._tally(account.id)
            tally.forget(now)
            verdict = tally.check(account, ask, now)
            if isinstance(verdict, Refusal):
                return replace(verdict, standing=self.standing(accounts, now))
            if verdict < ask.most:
                ask = Ask(ask.least, verdict, ask.counts)
        return self.record(grant_id, accounts, ask, now)

    def record(self, grant_id: str, accounts: Sequence[Account], ask: Ask, now: float) -> Grant:
        """Enter a call that somebody let in, whatever the limits say."""
        now = self._at(now)
        grant = Grant(grant_id, now, now + self._lease, ask)
        grant.accounts = tuple(accounts)
        grant.tallies = tuple([self._tally(account.id) for account in accounts])
        for tally in grant.tallies:
            tally.forget(now)
            tally.log.append(grant)
            tally.requests += grant.counts
            tally.tokens += grant.tokens
            tally.open += grant.counts
        self.grants[grant_id] = grant
        grant.standing = self.standing(accounts, now)
        return grant

    def settle(self, grant: Grant, used: int, now: float) -> None:
        """Count what a call used instead of what it might have; it is over. Twice is once."""
        if not grant.open:
            return
        now = self._at(now)
        self._close(grant)
        for tally in grant.tallies:
            tally.forget(now)
            if grant.at > now - WINDOW:
                tally.tokens += used - grant.tokens
        grant.tokens = used

    def renew(self, grants: Iterable[Grant], now: float) -> None:
        """Calls that go on keep their place."""
        for grant in grants:
            if grant.open:
                grant.expires = self._at(now) + self._lease
                self.grants[grant.id] = self.grants.pop(grant.id)

    def expire(self, now: float) -> list[Grant]:
        """Give up calls that nobody settled or renewed in time; they count in full."""
        now = self._at(now)
        late = []
        for grant in self.grants.values():
            if grant.expires > now:
                break
            late.append(grant)
        for grant in late:
            self._close(grant)
        return late

    def standing(self, accounts: Iterable[Account], now: float) -> Standing:
        """How the tightest of the accounts stands."""
        requests: tuple[int, int, float] | None = None
        tokens: tuple[int, int, float] | None = None
        for account in accounts:
            tally, limits = self._tally(account.id), account.limits
            reset = max(0.0, WINDOW - (now - tally.log[-1].at)) if tally.log else 0.0
            if (most := limits.requests_per_minute) is not None:
                left = max(0, most - tally.requests)
                if requests is None or left < requests[1]:
                    requests = (most, left, reset)
            if (most := limits.tokens_per_minute) is not None:
                left = max(0, most - tally.tokens)
                if tokens is None or left < tokens[1]:
                    tokens = (most, left, reset)
        return Standing(*(requests or (None, 0, 0.0)), *(tokens or (None, 0, 0.0)))

    def recent(self, now: float) -> list[Grant]:
        """All that still counts: granted within the last minute, or under way."""
        now = self._at(now)
        found = dict(self.grants)
        for tally in self._tallies.values():
            tally.forget(now)
            found |= {grant.id: grant for grant in tally.log}
        return list(found.values())

    def tidy(self, now: float) -> None:
        """Forget accounts that nothing is known of any more."""
        now = self._at(now)
        for name, tally in list(self._tallies.items()):
            tally.forget(now)
            if not tally.log and not tally.open:
                del self._tallies[name]

    def tally(self, account_id: str) -> Tally | None:
        """The account's last minute, to be looked at."""
        return self._tallies.get(account_id)

    def _close(self, grant: Grant) -> None:
        grant.open = False
        del self.grants[grant.id]
        for tally in grant.tallies:
            tally.open -= grant.counts

    def _tally(self, account_id: str) -> Tally:
        tally = self._tallies.get(account_id)
        if tally is None:
            tally = self._tallies[account_id] = Tally(account_id)
        return tally

    def _at(self, now: float) -> float:
        """Time, which never runs backwards here."""
        self._now = max(self._now, now)
        return self._now
