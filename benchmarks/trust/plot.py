"""The calibration plot: how often answers of a confidence are right, before and after, one panel a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pagoda.logic.trust.calibration import Bin

TITLES = {
    "qa": "a  HaluEval QA",
    "pairs": "b  Minimal pairs",
    "own": "c  Own answers to NQ",
    "general": "d  HaluEval general",
}
COLOURS = {"plain mean": "#9a9a9a", "calibrated": "#b5442b", "calibrated, factuality alone": "#2b6cb5"}


def draw(diagrams: Mapping[str, Mapping[str, Sequence[Bin]]], path: Path) -> None:
    """Write the picture; the area of a point is its share of the answers."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "trust"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(diagrams), figsize=(13, 4.0), sharey=True)
    for panel, (name, ways) in zip(panels, diagrams.items(), strict=True):
        panel.plot([0, 1], [0, 1], color="#cccccc", linewidth=1, linestyle="--")
        for way, bins in ways.items():
            places, shares = [each.mean for each in bins], [each.right for each in bins]
            panel.plot(places, shares, color=COLOURS[way], linewidth=1.5, label=way)
            panel.scatter(
                places,
                shares,
                s=[300 * each.count / sum(one.count for one in bins) for each in bins],
                color=COLOURS[way],
                alpha=0.6,
            )
        panel.set_title(TITLES[name], fontsize=11)
        panel.set_xlabel("confidence")
        panel.set_xlim(0, 1)
        panel.set_ylim(-0.03, 1.03)
    panels[0].set_ylabel("share that is right")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, loc="lower center", ncol=len(names))
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
