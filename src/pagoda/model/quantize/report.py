"""The one report on quantised forms: a row a form, verdicts in words, and the picture of quality against size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pagoda.core.types import Json
from pagoda.model.quantize.measuring import Quality

ORIGINAL = "original"
_SLOWER = 0.95
_SMALLER = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One form. Sizes in bytes, speeds in tokens a second; ``None`` where it could not be had, ``problem`` says why."""

    form: str
    engine: str
    """What ran it for the speeds: ``torch`` or ``llamacpp``."""
    bytes: int = 0
    """On disk."""
    share: float = 0.0
    """Of its numbers, those held in fewer than 16 bits."""
    kinds: Mapping[str, int]
    """How many numbers of each GGML type; empty for torch."""
    reloaded: bool = False
    """Whether it was loaded again from what was saved, and answered."""
    quality: Quality | None = None
    """Of its weights, in torch. ``reading`` and ``writing`` hold the speeds of ``engine``."""
    memory: int | None = None
    """Of the engine's process with llama.cpp; of the weights in torch."""
    problem: str = ""

    def to_json(self) -> dict[str, Json]:
        """As a report keeps it."""
        return asdict(self)


def row_of(data: Mapping[str, Any]) -> Row:
    """The row that a report keeps."""
    quality = data["quality"]
    return Row(**{**data, "quality": None if quality is None else Quality(**quality)})


def verdicts(rows: Sequence[Row], precision: str) -> list[str]:
    """What should be known of each form, in words: that it failed, is no smaller than the original of this
    ``precision``, quantises little, or is slower than its reference.

    Speeds are compared within an engine: torch's forms with the original, llama.cpp's with F16, or the first of them.
    """
    said = []
    first: dict[str, Row] = {}
    original = next((row for row in rows if row.form == ORIGINAL), None)
    for row in rows:
        if row.quality is not None and (row.engine not in first or row.form == "F16"):
            first[row.engine] = row
    for row in rows:
        if row.problem:
            said.append(f"{row.form} is no result: {row.problem}")
            continue
        if row.quality is None or row.form == ORIGINAL:
            continue
        if original is not None and row.bytes > _SMALLER * original.bytes:
            times = row.bytes / original.bytes
            said.append(
                f"{row.form} is no smaller than the original, which is {precision}: {times:.2f} times its bytes."
            )
        if row.share < 0.5 and row.form.lower() not in ("f32", "f16", "bf16", "fp16"):
            said.append(f"{row.form} quantises only {100 * row.share:.1f} % of the weights.")
        reference = first[row.engine]
        for what, name in (("reading", "reading prompts"), ("writing", "writing")):
            mine, its = getattr(row.quality, what), getattr(reference.quality, what)
            if row is not reference and mine < _SLOWER * its:
                said.append(f"{row.form} is slower than {reference.form} at {name}: {mine / its:.2f} times its speed.")
    return said


def draw(rows: Sequence[Row], precision: str, place: Path) -> None:
    """Write the picture: divergence from the original, of this ``precision``, against bytes. Needs matplotlib."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # an extra

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for engine, marker in (("torch", "s"), ("llamacpp", "o")):
        points = [row for row in rows if row.engine == engine and row.quality is not None and row.form != ORIGINAL]
        if not points:
            continue
        sizes = [row.bytes / 1e6 for row in points]
        axes.plot(sizes, [_divergence(row) for row in points], marker, label=engine)
        for row, size in zip(points, sizes, strict=True):
            axes.annotate(
                row.form, (size, _divergence(row)), textcoords="offset points", xytext=(5, 4), fontsize="small"
            )
    for row in rows:
        if row.form == ORIGINAL:
            axes.axvline(row.bytes / 1e6, color="grey", linestyle="--", label=f"{ORIGINAL} ({precision})")
    axes.margins(x=0.12)
    axes.set_yscale("log")
    axes.set_xlabel("MB on disk")
    axes.set_ylabel("KL divergence from the original")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize="small")
    figure.savefig(place)


def _divergence(row: Row) -> float:
    """For the logarithmic axis, which has no zero."""
    return max(row.quality.divergence if row.quality is not None else 0.0, 1e-9)
