"""The lines of a run's files as everybody who writes them makes them: of ``metrics.jsonl`` and ``events.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsFloat

from pagoda.core.runs.files import encode_number
from pagoda.core.runs.record import now
from pagoda.core.types import Json


def metric_line(step: int, values: Mapping[str, SupportsFloat], attempt: int) -> dict[str, Json]:
    """Numbers at a step; those of a later attempt replace those of an earlier one."""
    numbers = {name: encode_number(float(value)) for name, value in values.items()}
    return {"step": step, "time": now().isoformat(), "attempt": attempt, "values": numbers}


def event_line(kind: str, data: Json) -> dict[str, Json]:
    """Something happened."""
    return {"time": now().isoformat(), "type": kind, "data": data}
