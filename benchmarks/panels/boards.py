"""The dashboards of ``deploy/grafana`` as their panels' queries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLACE = Path(__file__).resolve().parents[2] / "deploy/grafana/dashboards"


@dataclass(frozen=True, slots=True)
class Target:
    """One query of a panel."""

    board: str
    panel: str
    unit: str
    expression: str
    legend: str

    def expanded(self, seconds: int) -> str:
        """As Grafana sends it with all models chosen, rates taken over so many seconds."""
        return self.expression.replace("$__rate_interval", f"{seconds}s").replace("$model", ".*")


def boards() -> dict[str, Any]:
    """The dashboards by their files' names."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(PLACE.glob("*.json"))}


def targets() -> Iterator[Target]:
    """All queries of all dashboards."""
    for name, board in boards().items():
        for panel in board["panels"]:
            unit = panel["fieldConfig"]["defaults"]["unit"]
            for each in panel["targets"]:
                yield Target(name, panel["title"], unit, each["expr"], each["legendFormat"])
