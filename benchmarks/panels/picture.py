"""The picture of all panels, one small plot each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

_COLUMNS = 5
_MOST_LINES = 7
_SCALE = {"s": (1000, "ms"), "bytes": (1 / 2**20, "MiB"), "percentunit": (100, "%"), "reqps": (1, "/s")}


@dataclass(slots=True)
class Panel:
    """A panel with its series: names, and points of seconds and values."""

    board: str
    title: str
    unit: str
    series: list[tuple[str, list[tuple[float, float]]]] = field(default_factory=list)


def draw(panels: list[Panel], place: Path) -> None:
    """Write the picture."""
    from matplotlib.figure import Figure

    groups = [(name, list(members)) for name, members in groupby(panels, lambda panel: panel.board)]
    rows = sum(math.ceil(len(members) / _COLUMNS) for _, members in groups)
    figure = Figure(figsize=(4.0 * _COLUMNS, 2.6 * rows), layout="constrained", dpi=75)
    grid = figure.add_gridspec(rows, _COLUMNS)
    row = 0
    for name, members in groups:
        for number, panel in enumerate(members):
            axes = figure.add_subplot(grid[row + number // _COLUMNS, number % _COLUMNS])
            factor, unit = _SCALE.get(panel.unit, (1, ""))
            axes.set_title(f"{name} · {panel.title}" + (f", {unit}" if unit else ""), fontsize=9, loc="left")
            largest = sorted(panel.series, key=lambda each: -max((y for _, y in each[1] if y == y), default=0))
            for label, points in largest[:_MOST_LINES]:
                axes.plot([at for at, _ in points], [y * factor for _, y in points], linewidth=1, label=label[:44])
            most = max((y for _, points in panel.series for _, y in points if y == y), default=0)
            axes.set_ylim(0, most * factor * 1.15 or 1)
            axes.tick_params(labelsize=7)
            axes.grid(alpha=0.25)
            if len(panel.series) > 1:
                axes.legend(fontsize=5.5, loc="upper left", framealpha=0.6)
        row += math.ceil(len(members) / _COLUMNS)
    figure.supxlabel("seconds of the run", fontsize=9)
    place.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(place)
