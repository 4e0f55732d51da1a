"""The metrics of all processes of one home as one: each counts for itself, the one that owns the engines adds up.

Joined processes send what they have counted every few seconds, and whenever they are scraped themselves. What a process
has counted stays counted after its end, since a counter that falls reads as a restart; its gauges go with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

REPORT_SECONDS = 2.0
"""How often a joined process tells."""

_LEAST = ("pagoda_keys_fresh", "process_start_time_seconds", "process_max_fds")
_SAME = ("pagoda_build_info", "pagoda_home_free_bytes")
_FALLING = ("gauge", "unknown", "info")

Sample = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(slots=True)
class Family:
    """One metric: its kind, its words, and its values by name and labels."""

    kind: str
    text: str
    values: dict[Sample, float] = field(default_factory=dict)


Snapshot = dict[str, Family]


def snapshot(registry: CollectorRegistry) -> Snapshot:
    """What a registry holds now."""
    found: Snapshot = {}
    for metric in registry.collect():
        family = found[metric.name] = Family(metric.type, metric.documentation)
        for sample in metric.samples:
            if not sample.name.endswith("_created"):
                family.values[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def to_wire(taken: Snapshot) -> dict[str, Any]:
    """As JSON."""
    return {
        name: [family.kind, family.text, [[*key, value] for key, value in family.values.items()]]
        for name, family in taken.items()
    }


def from_wire(told: dict[str, Any]) -> Snapshot:
    """From JSON."""
    return {
        name: Family(
            kind, text, {(sample, tuple((label, value) for label, value in labels)): n for sample, labels, n in values}
        )
        for name, (kind, text, values) in told.items()
    }


class Fleet:
    """What other processes of this home have counted."""

    def __init__(self) -> None:
        self._told: dict[str, Snapshot] = {}
        self._ended: Snapshot = {}

    def tell(self, process: str, taken: Snapshot) -> None:
        """A process has counted this so far."""
        self._told[process] = taken

    def leave(self, process: str) -> None:
        """A process has ended; what it counted is kept."""
        gone = self._told.pop(process, {})
        self._ended = _sum((self._ended, {name: each for name, each in gone.items() if each.kind not in _FALLING}))

    def expose(self, registry: CollectorRegistry) -> bytes:
        """Everything together with this process's own, in Prometheus's text format."""
        own = snapshot(registry)
        if not self._told and not self._ended:
            return generate_latest(_Frozen(own))
        return generate_latest(_Frozen(_sum((own, *self._told.values(), self._ended))))


def _sum(parts: Iterable[Snapshot]) -> Snapshot:
    total: Snapshot = {}
    for part in parts:
        for name, family in part.items():
            into = total.setdefault(name, Family(family.kind, family.text))
            for key, value in family.values.items():
                known = into.values.get(key)
                if known is None:
                    into.values[key] = value
                elif name in _LEAST:
                    into.values[key] = min(known, value)
                elif name not in _SAME:
                    into.values[key] = known + value
    return total


class _Frozen(Collector):
    """A snapshot as the library's exposition reads it."""

    def __init__(self, taken: Snapshot) -> None:
        self._taken = taken

    def collect(self) -> Iterable[Metric]:
        for name, family in self._taken.items():
            metric = Metric(name, family.text, family.kind)
            for (sample, labels), value in family.values.items():
                metric.add_sample(sample, dict(labels), value)
            yield metric
