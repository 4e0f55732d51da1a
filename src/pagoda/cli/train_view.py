"""How the supervision report looks on a terminal: what is learnt in green, its end marked, the rest dim."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pagoda.model.data.rows import Refused
from pagoda.model.training.supervision import Piece, Supervision

_STYLES = {"given": "dim", "learnt": "bold green", "end": "black on green"}
_REFUSED_SHOWN = 5


def print_supervision(
    report: Supervision, refused: Sequence[Refused], shown: Sequence[tuple[int, Sequence[Piece]]]
) -> None:
    """The report, the first refused rows, and a few rows in colours."""
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _facts(report):
        table.add_row(name, value)
    console.print(table)
    for each in refused[:_REFUSED_SHOWN]:
        console.print(f"row {each.number} is refused ({each.reason}): {each.why}", style="yellow", markup=False)
    if len(refused) > _REFUSED_SHOWN:
        console.print(f"... and {len(refused) - _REFUSED_SHOWN} more", style="yellow")
    for number, parts in shown:
        line = Text(f"row {number}  ", style="cyan")
        for text, kind in parts:
            line.append(text, style=_STYLES[kind])
        console.print(line)


def _facts(report: Supervision) -> list[tuple[str, str]]:
    refused = ", ".join(f"{count} {reason}" for reason, count in report.refused.items())
    share = report.supervised / report.tokens if report.tokens else 0.0
    return [
        ("rows", f"{report.rows}" + (f"; refused: {refused}" if refused else "")),
        ("tokens", f"{report.tokens}, {report.supervised} of them learnt ({share:.1%})"),
        ("learnt in a row", f"{report.least} at least, {report.median:g} in the middle, {report.most} at most"),
        ("end not learnt", f"{report.unended} rows"),
        ("cut off", f"{report.truncated} rows"),
        (
            "padding",
            f"{report.padding:.1%} of a batch; {report.padding_to_longest:.1%} if all were padded to max_length",
        ),
        ("sequences", f"{report.sequences}"),
        *([("validation", f"{report.validation} rows; trained on too: {report.trained}")] if report.validation else []),
    ]
