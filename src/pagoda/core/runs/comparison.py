"""Two runs side by side: in what their making differs, and how their metrics came out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pagoda.core.runs import files
from pagoda.core.runs.directory import RunDirectory
from pagoda.core.runs.metrics import Summary, read_metrics, summarize
from pagoda.core.runs.record import Run
from pagoda.core.types import Json


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs. A run that lacks a key (or a metric) lacks it in the pair too: ``{"a": 1}`` or ``{"b": 2}``."""

    a: Run
    b: Run
    differences: Mapping[str, Mapping[str, Json]]
    """By dotted key: ``kind``, ``seed``, ``config....`` and ``versions....`` where they are not equal."""
    metrics: Mapping[str, Mapping[str, Summary]]
    """By name of the metric, for every metric of either run."""

    def to_json(self) -> dict[str, Json]:
        """For machines."""
        return {
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "differences": {key: dict(pair) for key, pair in self.differences.items()},
            "metrics": {
                name: {side: _summary(summary) for side, summary in pair.items()} for name, pair in self.metrics.items()
            },
        }


def compare(a: Run, b: Run) -> Comparison:
    """Compare two runs as they stand now."""
    left, right = dict(_facts(a)), dict(_facts(b))
    differences = {
        key: pair for key in sorted(left | right) if len(pair := _pair(key, left, right)) < 2 or pair["a"] != pair["b"]
    }
    of_a, of_b = (summarize(read_metrics(RunDirectory(run.directory).metrics)) for run in (a, b))
    metrics = {name: _pair(name, of_a, of_b) for name in sorted(of_a | of_b)}
    return Comparison(a, b, differences, metrics)


def _pair(key: str, left: Mapping[str, Json], right: Mapping[str, Json]) -> dict[str, Json]:
    return {side: facts[key] for side, facts in (("a", left), ("b", right)) if key in facts}


def _facts(run: Run) -> Iterator[tuple[str, Json]]:
    yield "kind", run.kind
    yield "seed", run.seed
    yield from _flat("config", run.config)
    yield from _flat("versions", run.versions)


def _flat(prefix: str, value: Json) -> Iterator[tuple[str, Json]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}", inner)
    elif value != {} or prefix not in ("config", "versions"):
        yield prefix, value


def _summary(summary: Summary) -> dict[str, Json]:
    return {name: files.encode_number(value) for name, value in dataclasses.asdict(summary).items()}
