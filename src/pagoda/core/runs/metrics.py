"""The numbers of a run, read back: ``metrics.jsonl`` without what a later attempt did again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pagoda.core.runs import files
from pagoda.core.runs.record import parse_time
from pagoda.core.types import Json


@dataclass(frozen=True, slots=True)
class Point:
    """Numbers at a step of an attempt."""

    step: int
    time: datetime
    attempt: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Summary:
    """One metric over a run. Which of ``low`` and ``high`` is best depends on the metric, so both are here."""

    last: float
    low: float
    high: float


def read_metrics(path: Path) -> list[Point]:
    """All points of the ``metrics.jsonl`` at ``path`` that count, in the order of recording."""
    lines = files.read_all_lines(path)
    return _without_repeated([point for line in lines if (point := parse_point(line)) is not None])


def parse_point(line: Json) -> Point | None:
    """One line; ``None`` when it is not what ``RunContext.metric`` writes."""
    try:
        values = {str(name): files.decode_number(value) for name, value in line["values"].items()}
        return Point(int(line["step"]), parse_time(line["time"]), int(line["attempt"]), values)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def summarize(points: Iterable[Point]) -> dict[str, Summary]:
    """Last, lowest and highest value of each metric; values that are not numbers only count as last."""
    columns: dict[str, list[float]] = {}
    for point in points:
        for name, value in point.values.items():
            columns.setdefault(name, []).append(value)
    found = {}
    for name, column in sorted(columns.items()):
        numbers = [value for value in column if not math.isnan(value)] or [math.nan]
        found[name] = Summary(column[-1], min(numbers), max(numbers))
    return found


def _without_repeated(points: list[Point]) -> list[Point]:
    """Drop from each attempt the steps that a later one did again: it went back to a checkpoint before them."""
    first: dict[int, int] = {}
    for point in points:
        first[point.attempt] = min(first.get(point.attempt, point.step), point.step)
    limit: dict[int, float] = {}
    lowest = math.inf
    for attempt in sorted(first, reverse=True):
        limit[attempt] = lowest
        lowest = min(lowest, first[attempt])
    return [point for point in points if point.step < limit[point.attempt]]
