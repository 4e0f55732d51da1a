"""What is counted of limits, budgets and usage.

Teams are labels; keys only where the operator wants them, for they may be many.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from pagoda.service.counter import Count, LoopCounter
from pagoda.service.keys.key import NANO, Limits

KINDS = ("prompt", "cached", "completion")


class LimitMetrics:
    """The metrics of this package, in a process's registry."""

    def __init__(self, registry: CollectorRegistry, *, by_key: bool) -> None:
        self._by_key = by_key
        self._counters: dict[tuple[str, str], tuple[Count, Count, Count, Count]] = {}
        self._tokens = LoopCounter("pagoda_usage_tokens", "Tokens charged.", ("team", "key", "kind"), registry=registry)
        self._money = LoopCounter(
            "pagoda_usage_money", "Money charged, in the currency of the prices.", ("team", "key"), registry=registry
        )
        self.refusals = Counter(
            "pagoda_limit_refusals", "Calls that a limit refused.", ("team", "limit"), registry=registry
        )
        self._left = Gauge(
            "pagoda_budget_left", "What a budget leaves, by the ledger.", ("account", "unit"), registry=registry
        )
        self._whole = Gauge("pagoda_budget_total", "All of a budget.", ("account", "unit"), registry=registry)
        self.open = Gauge("pagoda_limit_reservations", "Reservations of calls under way.", registry=registry)
        self.unwritten = Gauge(
            "pagoda_usage_rows_unwritten", "Rows of usage that wait for the database.", registry=registry
        )
        self.failures = Counter(
            "pagoda_limit_store_failures", "Times a store of limits failed.", ("store", "reason"), registry=registry
        )
        self.working = Gauge("pagoda_limit_store_up", "1 while a store of limits works.", ("store",), registry=registry)

    def charged(self, team: str, key: str, tokens: tuple[int, int, int], money: int) -> None:
        """Count what a call used: tokens of its prompt, of those cached, and of its answer."""
        place = (team, key if self._by_key else "")
        counters = self._counters.get(place)
        if counters is None:  # looking children up by label costs more than counting
            prompt, cached, completion = (self._tokens.count(*place, kind) for kind in KINDS)
            counters = self._counters[place] = (prompt, cached, completion, self._money.count(*place))
        for counter, count in zip(counters, tokens, strict=False):
            if count:
                counter.inc(count)
        if money:
            counters[3].inc(money / NANO)

    def budget_left(self, account: str, limits: Limits, tokens: int | None, money: int | None) -> None:
        """What a budget leaves, and what there was of it; keys' only where they are wanted."""
        if account.startswith("key:") and not self._by_key:
            return
        for unit, left, whole, scale in (
            ("tokens", tokens, limits.budget_tokens, 1),
            ("money", money, limits.budget_money, NANO),
        ):
            if left is not None and whole is not None:
                self._left.labels(account, unit).set(left / scale)
                self._whole.labels(account, unit).set(whole / scale)
