"""A histogram for what happens with every request or token: a bisection and two additions, no lock.

It is used on the event loop's thread alone, which the library's own (some microseconds, with locks) does not need.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Tally:
    """The observations of one set of labels."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class LoopHistogram(Collector):
    """A histogram with labels, in a process's registry."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._documentation, self._labels = name, documentation, tuple(labels)
        self._bounds = tuple(bounds)
        self._spelled = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        self._tallies: dict[tuple[str, ...], Tally] = {}
        registry.register(self)

    def tally(self, *labels: str) -> Tally:
        """The observations of these labels."""
        known = self._tallies.get(labels)
        if known is None:
            known = self._tallies[labels] = Tally(self._bounds)
        return known

    def describe(self) -> Iterable[Metric]:
        """Its name, for the registry."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """What was counted."""
        family = self._family()
        for labels, tally in list(self._tallies.items()):
            buckets = list(zip(self._spelled, map(float, accumulate(tally.counts)), strict=True))
            family.add_metric(labels, buckets, tally.total)
        return [family]

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
