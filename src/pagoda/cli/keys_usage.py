"""``pagoda keys usage``: what was used, for people, programs and spreadsheets."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from pagoda.cli.context import add_json_flag, add_settings_flag, print_json, settings_from

_COUNTS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens")
_GROUPS = ("key", "team", "model", "day")


def add_usage(words: Any) -> None:
    """Add the command to those of ``pagoda keys``."""
    parser = words.add_parser(
        "usage",
        help="report what keys used",
        description="Report tokens and money by key, team, model and day (UTC), from the ledger. Totals are exact.",
        epilog="example: pagoda keys usage --since 2026-11-01 --by key,model",
    )
    parser.add_argument("--key", metavar="ID", help="only this key's; local is this machine's own user")
    parser.add_argument("--team", metavar="NAME", help="only this team's")
    parser.add_argument("--model", metavar="MODEL", help="only of this model")
    parser.add_argument("--since", metavar="DAY", help="first day, such as 2026-11-01")
    parser.add_argument("--until", metavar="DAY", help="last day")
    parser.add_argument("--by", default="key,model,day", help="of key, team, model, day (default: key,model,day)")
    parser.add_argument("--csv", action="store_true", help="print CSV")
    add_json_flag(parser)
    add_settings_flag(parser)
    parser.set_defaults(run=usage)


def usage(args: argparse.Namespace) -> int:
    """Print the report."""
    import asyncio

    from pagoda.core.storage.store import open_store
    from pagoda.service.limits.report import usage_report

    settings, question = settings_from(args), _question(args)

    async def ask() -> dict[str, Any]:
        async with open_store(settings) as store:
            return await usage_report(store, question, settings.prices.currency)

    report = asyncio.run(ask())
    if args.json:
        print_json(report)
    elif args.csv:
        _print_csv(report)
    else:
        _print_table(report)
    return 0


def _question(args: argparse.Namespace) -> Any:
    from datetime import date

    from pagoda.core.errors import InvalidRequest
    from pagoda.service.limits.report import Question

    groups = [name for name in args.by.split(",") if name]
    if any(name not in _GROUPS for name in groups) or len(set(groups)) != len(groups):
        raise InvalidRequest(f"--by must name some of {', '.join(_GROUPS)}, separated by commas.")
    for name in ("since", "until"):
        given = getattr(args, name)
        try:
            setattr(args, name, None if given is None else date.fromisoformat(given).isoformat())
        except ValueError:
            raise InvalidRequest(f"--{name} {given}: write a day as 2026-11-22.") from None
    return Question(
        key=args.key, team=args.team, model=args.model, since=args.since, until=args.until, by=tuple(groups)
    )


def _print_csv(report: dict[str, Any]) -> None:
    import csv

    names = [*report["by"], *_COUNTS, "money", "estimated_tokens", "estimated_money"]
    writer = csv.DictWriter(sys.stdout, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(report["rows"])


def _print_table(report: dict[str, Any]) -> None:
    head = [*report["by"], *(name.replace("_", " ") for name in _COUNTS), "cost"]
    rows = [[*(row[name] for name in report["by"]), *_figures(row)] for row in report["rows"]]
    total = report["total"]
    if report["by"]:
        rows.append(["total", *[""] * (len(report["by"]) - 1), *_figures(total)])
    else:
        rows = [_figures(total)]
    widths = [max(len(line[place]) for line in (head, *rows)) for place in range(len(head))]
    for line in (head, *rows):
        shown = [
            cell.ljust(width) if place < len(report["by"]) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        sys.stdout.write("  ".join(shown).rstrip() + "\n")
    if total["estimated_tokens"] or total["estimated_money"]:
        sys.stdout.write(f"Of these {total['estimated_tokens']:,} tokens are estimated.\n")


def _figures(row: dict[str, Any]) -> list[str]:
    return [*(f"{row[name]:,}" for name in _COUNTS), row["cost"]]
