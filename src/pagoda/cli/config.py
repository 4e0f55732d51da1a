"""``pagoda config``: the effective settings and where each came from."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from pagoda.cli.context import add_json_flag, add_settings_flag, print_json, settings_from


def register(commands: Any) -> None:
    """Add the command."""
    group = commands.add_parser(
        "config", help="show settings", description="Show settings.", epilog="example: pagoda config show"
    )
    words = group.add_subparsers(metavar="WORD", required=True)
    parser = words.add_parser(
        "show",
        help="print every setting, its value and its origin",
        description="Print every setting with its value and where it came from; secrets stay masked.",
        epilog="example: PAGODA_SERVER_PORT=9000 pagoda config show",
    )
    add_json_flag(parser)
    add_settings_flag(parser)
    parser.set_defaults(run=show)


def show(args: argparse.Namespace) -> int:
    """Print them."""
    from pagoda.core.configuration import options
    from pagoda.core.setting_values import Secret

    settings = settings_from(args)
    rows: list[tuple[str, Any, str, str]] = [
        ("home", str(settings.home), settings.origins["home"], "Where Pagoda keeps everything (PAGODA_HOME).")
    ]
    for option in options():
        section, _, name = option.key.partition(".")
        value = getattr(getattr(settings, section), name)
        shown = str(value) if isinstance(value, Secret) else value
        rows.append((option.key, shown, settings.origins.get(option.key, "default"), option.doc))
    if args.json:
        print_json([{"key": key, "value": value, "origin": origin, "doc": doc} for key, value, origin, doc in rows])
        return 0
    width = max(len(row[0]) for row in rows)
    for key, value, origin, doc in rows:
        written: Any = ", ".join(value) if isinstance(value, tuple) else value
        sys.stdout.write(f"{key:{width}}  {written!s:28}  {origin}\n{'':{width}}  # {doc}\n")
    return 0
