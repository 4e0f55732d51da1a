"""Two plots in SVG: estimates with their intervals, and pairs of values as bars. Colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from pagoda.logic.evaluation.statistics import Interval

_WIDTH, _LEFT, _RIGHT, _ROW = 1000, 220, 170, 34


def intervals(rows: Sequence[tuple[str, Interval, bool]], bounds: tuple[float, float] | None) -> str:
    """Each estimate as a dot in its interval, in points; ``bounds``: of the axis, ``None`` fits it around zero."""
    if bounds is None:
        reach = max((max(abs(row.low), abs(row.high)) for _, row, _ in rows), default=0.01) or 0.01
        bounds = (-reach * 1.1, reach * 1.1)
    low, high = bounds
    height = _ROW * len(rows) + 34
    drawn = []
    for mark in _marks(low, high):
        x = _x(mark, low, high)
        kind = "zero" if abs(mark) < 1e-12 and low < 0 else "grid"
        drawn.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - 26}"/>')
        drawn.append(f'<text class="soft" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{100 * mark:g}</text>')
    for number, (name, row, clear) in enumerate(rows):
        y = _ROW * number + 22
        style = " clear" if clear else ""
        drawn += [
            _name(name, y),
            f'<line class="range{style}" x1="{_x(row.low, low, high):.1f}" x2="{_x(row.high, low, high):.1f}" '
            f'y1="{y}" y2="{y}"/>',
            f'<circle class="dot{style}" cx="{_x(row.value, low, high):.1f}" cy="{y}" r="6"/>',
            f'<text class="soft" x="{_WIDTH - _RIGHT + 14}" y="{y + 4}">{100 * row.value:.1f} '
            f"({100 * row.low:.1f}…{100 * row.high:.1f})</text>",
        ]
    return _svg(height, drawn)


def bars(rows: Sequence[tuple[str, float, float]]) -> str:
    """Two values of one kind, the second the greater one, as a bar within a bar."""
    most = max((high for _, _, high in rows), default=1.0) or 1.0
    height = _ROW * len(rows) + 10
    drawn = []
    for number, (name, first, second) in enumerate(rows):
        y = _ROW * number + 20
        for value, style in ((second, "bar light"), (first, "bar")):
            width = max(1.0, value / most * (_WIDTH - _LEFT - _RIGHT))
            drawn.append(f'<rect class="{style}" x="{_LEFT}" y="{y - 9}" width="{width:.1f}" height="18" rx="3"/>')
        drawn.append(_name(name, y))
        drawn.append(f'<text class="soft" x="{_WIDTH - _RIGHT + 14}" y="{y + 4}">{first:.4g} · {second:.4g}</text>')
    return _svg(height, drawn)


def _x(value: float, low: float, high: float) -> float:
    return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)


def _name(name: str, y: float) -> str:
    short = name if len(name) <= 34 else name[:33] + "…"
    return f'<text x="{_LEFT - 14}" y="{y + 4}" text-anchor="end">{escape(short)}</text>'


def _marks(low: float, high: float) -> list[float]:
    """Round places on an axis, about five of them."""
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
    first = math.ceil(low / step)
    return [step * each for each in range(first, math.floor(high / step) + 1)]


def _svg(height: float, drawn: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">{"".join(drawn)}</svg>'
