"""The pictures of a training: loss and learning rate by step, from the metrics of its run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pagoda.core.errors import Unavailable
from pagoda.core.runs.metrics import Point, read_metrics


def plot_training(metrics: Path, target: Path, title: str) -> None:
    """Draw ``target`` (PNG) from a run's ``metrics.jsonl``. Raises ``Unavailable`` without matplotlib."""
    points = read_metrics(metrics)
    figure, (above, below) = new_figure(2, title)
    for name, style in (
        ("loss", {"color": "tab:blue", "alpha": 0.35, "linewidth": 1}),
        ("eval_loss", {"color": "tab:red", "marker": "o"}),
    ):
        steps, values = series(points, name)
        if steps:
            above.plot(steps, values, label={"loss": "training", "eval_loss": "validation"}[name], **style)
    steps, values = series(points, "loss")
    if len(values) > 10:
        above.plot(steps, smoothed(values), color="tab:blue", label="training, smoothed")
    above.set_ylabel("loss per supervised token")
    above.legend()
    steps, values = series(points, "learning_rate")
    below.plot(steps, values, color="tab:green")
    below.set_ylabel("learning rate")
    below.set_xlabel("step")
    figure.savefig(target, dpi=120)


def series(points: Sequence[Point], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric."""
    found = [(point.step, point.values[name]) for point in points if name in point.values]
    return [step for step, _ in found], [value for _, value in found]


def smoothed(values: Sequence[float], weight: float = 0.1) -> list[float]:
    """The exponential mean, from the first value on."""
    result: list[float] = []
    for value in values:
        result.append(value if not result else result[-1] + weight * (value - result[-1]))
    return result


def new_figure(rows: int, title: str) -> tuple[Any, Any]:
    """A figure that needs no screen, and its axes one above another. Raises ``Unavailable`` without matplotlib."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise Unavailable(
            "Plots need matplotlib: python -m pip install 'pagoda-llm[plots]'.", code="not_installed", retryable=False
        ) from error
    figure = Figure(figsize=(8, 3 * rows), layout="constrained")
    figure.suptitle(title)
    return figure, figure.subplots(rows, 1, sharex=rows > 1, squeeze=True)
