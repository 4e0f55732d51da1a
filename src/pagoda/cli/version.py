"""``pagoda version``: which versions are at work."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from pagoda.cli.context import add_json_flag, print_json

_PARTS = ("xllamacpp", "onnxruntime", "fastapi", "uvicorn", "aiohttp", "sqlalchemy", "torch", "transformers", "vllm")


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "version",
        help="print versions",
        description="Print the versions of Pagoda and its parts.",
        epilog="example: pagoda version --json",
    )
    add_json_flag(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print them."""
    import platform

    import pagoda

    found = {"pagoda": pagoda.__version__, "python": platform.python_version()} | installed(_PARTS)
    if args.json:
        print_json(found)
    else:
        for name, number in found.items():
            sys.stdout.write(f"{name:14} {number or '(not installed)'}\n")
    return 0


def installed(names: tuple[str, ...]) -> dict[str, str | None]:
    """Installed versions by distribution; ``None`` where there is none."""
    from importlib import metadata

    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
