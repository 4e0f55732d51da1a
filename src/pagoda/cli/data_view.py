"""How the report on training data looks on a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from pagoda.model.data.report import Lengths, Report

_BAR = 40


def print_report(report: Report, most: int) -> None:
    """Counts, lengths with their histogram, and the first findings."""
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("rows", f"{report.rows}, {report.usable} of them readable as {report.form or 'any form'}")
    table.add_row("languages", _counts(report.languages))
    if report.labels:
        table.add_row("labels", f"{_counts(report.labels)}; the commonest {report.imbalance:.1f} times the rarest")
    for name, lengths in (("characters", report.characters), ("tokens", report.tokens)):
        if lengths is not None:
            table.add_row(name, _lengths(lengths))
    table.add_row("findings", _counts(report.reasons) or "none")
    console.print(table)
    if (shown := report.tokens or report.characters) is not None:
        highest = max(count for _, _, count in shown.histogram) or 1
        for low, high, count in shown.histogram:
            console.print(f"  {low:>7} to {high:<7} {'█' * round(_BAR * count / highest)} {count}")
    for finding in report.findings[:most]:
        style = "yellow" if finding.reason == "personal" else "red"
        console.print(f"row {finding.row}  {finding.reason}: {finding.why}", style=style, markup=False, soft_wrap=True)
    if len(report.findings) > most:
        console.print(f"... and {len(report.findings) - most} more; --show or --json gives them")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _lengths(lengths: Lengths) -> str:
    shares = ", ".join(f"{name} {value:g}" for name, value in lengths.percentiles.items())
    return f"{lengths.least} to {lengths.most}, mean {lengths.mean:.1f}; {shares}"
