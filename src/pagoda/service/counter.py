"""Counters and gauges for what happens with every request: an addition, no lock.

They are used on the event loop's thread alone, which the library's own (a lock and four calls each) do not need.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


class Count:
    """What was counted under one set of labels."""

    __slots__ = ("created", "value")

    def __init__(self) -> None:
        self.created = time.time()
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Count so many more."""
        self.value += amount


class LoopCounter(Collector):
    """A counter with labels, in a process's registry."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name, self._documentation, self._labels = name, documentation, tuple(labels)
        self._counts: dict[tuple[str, ...], Count] = {}
        registry.register(self)

    def count(self, *labels: str) -> Count:
        """What is counted under these labels."""
        known = self._counts.get(labels)
        if known is None:
            known = self._counts[labels] = Count()
        return known

    def describe(self) -> Iterable[Metric]:
        """Its name, for the registry."""
        return [CounterMetricFamily(self._name, self._documentation, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        """What was counted."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, count in list(self._counts.items()):
            family.add_metric(labels, count.value, created=count.created)
        return [family]


class LoopGauge(LoopCounter):
    """A gauge with labels that is counted up and down."""

    def describe(self) -> Iterable[Metric]:
        """Its name, for the registry."""
        return [GaugeMetricFamily(self._name, self._documentation, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        """What is counted now."""
        family = GaugeMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, count in list(self._counts.items()):
            family.add_metric(labels, count.value)
        return [family]
