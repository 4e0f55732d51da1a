"""A picture of a report: throughput and latency over the load. Needs matplotlib, which the extra ``plots`` brings."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pagoda.core.errors import InvalidRequest, StoreError

FORMS = (".svg", ".png")
_WIDTH, _HEIGHT = 11.0, 3.6
_PANELS = (
    ("Output tokens a second", (("output_tokens_per_second", "", 1.0, ""),)),
    (
        "Time to first token, ms",
        tuple(("first_token_seconds", share, 1000.0, share) for share in ("p50", "p95", "p99")),
    ),
    ("Time of a token, ms", tuple(("token_seconds", share, 1000.0, share) for share in ("p50", "p95", "p99"))),
)
_EMBEDDING_PANELS = (
    ("Requests a second", (("requests_per_second", "", 1.0, ""),)),
    ("Time of an answer, ms", tuple(("latency_seconds", share, 1000.0, share) for share in ("p50", "p95", "p99"))),
)


def check_plot(place: Path) -> None:
    """Raise ``InvalidRequest`` when a picture could not be drawn there: before anything is measured for it."""
    if place.suffix not in FORMS:
        raise InvalidRequest(f"--plot {place}: the name must end in {' or '.join(FORMS)}.", param="plot")
    if find_spec("matplotlib") is None:
        raise InvalidRequest(
            "--plot needs matplotlib; install it with `pip install 'pagoda-llm[plots]'`.", param="plot"
        )


def draw(data: dict[str, Any], place: Path) -> None:
    """Write the picture."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # an extra

    panels = _EMBEDDING_PANELS if data["endpoint"] == "embeddings" else _PANELS
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    kinds = sorted({load["load"]["kind"] for load in data["loads"]})
    for place_of, (title, curves) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place_of)
        for kind in kinds:
            for what, share, scale, label in curves:
                points = curve(data["loads"], kind, what, share)
                name = " ".join(filter(None, (label, kind if len(kinds) > 1 else "")))
                axes.plot([x for x, _ in points], [y * scale for _, y in points], marker="o", label=name or None)
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel({"closed": "clients", "open": "requests a second"}[kinds[0]] if len(kinds) == 1 else "load")
        axes.set_ylim(0, axes.get_ylim()[1] * 1.05)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize="small")
    figure.suptitle(f"{data['model']} ({data['endpoint']})", fontsize="medium")
    try:
        figure.savefig(place)
    except OSError as error:
        raise StoreError(f"{place} cannot be written: {error.strerror}.") from error


def curve(loads: list[dict[str, Any]], kind: str, what: str, share: str) -> list[tuple[float, float]]:
    """Points of a curve by load: of a figure, or of its percentile; loads without it have no point."""
    points = []
    for load in loads:
        about, value = load["load"], load[what]
        if about["kind"] != kind or value is None:
            continue
        points.append((float(about.get("concurrency") or about.get("rate")), float(value[share] if share else value)))
    return sorted(points)
