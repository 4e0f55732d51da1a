"""``pagoda doctor``: what is installed, what is missing, and what to type."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from pagoda.cli.context import add_json_flag, add_settings_flag, print_json, settings_from

_MARKS = {"ok": "ok     ", "missing": "MISSING", "optional": "-      "}


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        help="say what is installed, what is missing, and what to type",
        description="Check this installation. Exit status 1 when something needed is missing.",
        epilog="example: pagoda doctor",
    )
    add_json_flag(parser)
    add_settings_flag(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check and print."""
    import os

    settings = settings_from(args)
    from pagoda.application.checkup import examine

    findings = examine(settings, os.environ)
    if args.json:
        print_json([vars(finding) for finding in findings])
    else:
        for finding in findings:
            sys.stdout.write(f"{_MARKS[finding.verdict]}  {finding.what}\n")
            if finding.advice:
                sys.stdout.write(f"{'':9}{finding.advice}\n")
    return int(any(finding.verdict == "missing" for finding in findings))
