"""Numbers made of timelines: percentiles, rates, goodput, failures. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pagoda.application.bench.driving import Measured
from pagoda.application.bench.measuring import Timeline
from pagoda.application.bench.schedule import Closed, Load

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Bound:
    """What a request must keep to count as good: seconds, or ``None`` for no bound."""

    first: float | None = None
    gap: float | None = None
    """Of the mean time between tokens."""

    def keeps(self, line: Timeline) -> bool:
        """Whether a request was answered within the bound; an answer of one token has no gap to be judged."""
        if line.outcome != "done":
            return False
        if self.first is not None and (line.first is None or line.first > self.first):
            return False
        return self.gap is None or line.token_seconds is None or line.token_seconds <= self.gap


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value under which ``share`` percent of sorted values lie, between two of them in proportion."""
    place = (len(ordered) - 1) * share / 100
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def spread(values: Iterable[float]) -> dict[str, float] | None:
    """Mean, percentiles and extremes; ``None`` without values."""
    ordered = sorted(values)
    if not ordered:
        return None
    found = {"mean": math.fsum(ordered) / len(ordered), "min": ordered[0], "max": ordered[-1]}
    found |= {f"p{share}": percentile(ordered, share) for share in PERCENTILES}
    return {name: float(f"{value:.5g}") for name, value in found.items()}


def figures(measured: Measured, bound: Bound | None) -> dict[str, Any]:
    """Everything that is reported of one load, as JSON-ready data; the schema is in docs/guides/bench.md."""
    lines = measured.timelines
    done = [line for line in lines if line.outcome == "done"]
    seconds = measured.seconds
    read, written = (sum(getattr(line, name) for line in done) for name in ("prompt_tokens", "completion_tokens"))
    good = [line for line in done if bound is not None and bound.keeps(line)]
    return {
        "load": _load(measured.load),
        "interrupted": measured.interrupted,
        "seconds": _round(seconds),
        "requests": len(lines),
        "done": len(done),
        "unfinished": sum(line.outcome == "unfinished" for line in lines),
        "failed": dict(Counter(line.reason for line in lines if line.outcome == "failed")),
        "failed_said": {line.reason: line.said for line in lines if line.outcome == "failed" and line.said},
        "first_token_seconds": spread(line.first for line in done if line.first is not None),
        "between_frames_seconds": spread(gap for line in done for gap in line.gaps),
        "token_seconds": spread(line.token_seconds for line in done if line.token_seconds is not None),
        "latency_seconds": spread(line.latency for line in done),
        "sent_late_seconds": spread(line.sent - line.due for line in lines if line.sent),
        "input_tokens": spread(line.prompt_tokens for line in done),
        "output_tokens": spread(line.completion_tokens for line in done),
        "cached_tokens": sum(line.cached_tokens for line in done),
        "tokens_counted_by": "target" if all(line.counted for line in done) else "frames",
        "requests_per_second": _rate(len(done), seconds),
        "output_tokens_per_second": _rate(written, seconds),
        "total_tokens_per_second": _rate(read + written, seconds),
        "goodput": None
        if bound is None
        else {
            "first_token_seconds": bound.first,
            "token_seconds": bound.gap,
            "requests": len(good),
            "requests_per_second": _rate(len(good), seconds),
        },
        "client_processor_share": _round(measured.processor),
    }


def _load(load: Load) -> dict[str, Any]:
    if isinstance(load, Closed):
        return {"kind": "closed", "concurrency": load.concurrency}
    return {"kind": "open", "rate": load.rate, "arrivals": load.arrivals}


def _rate(number: int, seconds: float) -> float:
    return _round(number / seconds) if seconds > 0 else 0.0


def _round(value: float) -> float:
    return float(f"{value:.5g}")
