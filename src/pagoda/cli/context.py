"""What commands share: settings from file, environment and ``--set``, and output for people or machines."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pagoda.core.settings import Settings
    from pagoda.logic.inference.joined import JoinedDoor

    AddCommand = Callable[[str, Callable[[argparse.Namespace], int], str, str], argparse.ArgumentParser]


ANY_SETTING = "any setting, for example engines.threads=4"


def add_settings_flag(parser: argparse.ArgumentParser, help_: str = ANY_SETTING) -> None:
    """``--set key=value`` for any setting, as in pagoda.toml."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=help_)


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """``--json`` for machines."""
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def command_group(
    commands: Any, name: str, *, help_: str, about: str, example: str, sets: str = ANY_SETTING
) -> AddCommand:
    """Add a group of commands. What comes back adds one: its name, what runs it, what it does, and an example of it.

    ``sets`` says what ``--set`` changes.
    """
    group = commands.add_parser(name, help=help_, description=about, epilog=f"example: pagoda {name} {example}")
    words = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(word: str, run: Callable[[argparse.Namespace], int], does: str, example: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = words.add_parser(
            word, help=does, description=does[0].upper() + does[1:] + ".", epilog=f"example: pagoda {name} {example}"
        )
        add_json_flag(parser)
        add_settings_flag(parser, sets)
        parser.set_defaults(run=run)
        return parser

    return add


def settings_from(args: argparse.Namespace, **flags: Any) -> Settings:
    """The effective settings; ``flags`` are values of the command's own options by dotted key."""
    from pagoda.core.configuration import load_settings, options
    from pagoda.core.errors import InvalidRequest

    given: dict[str, Any] = {}
    known = {option.key for option in options()}
    for item in getattr(args, "set", []):
        key, sign, value = item.partition("=")
        if not sign:
            raise InvalidRequest(f"--set {item}: write it as key=value, for example --set engines.threads=4.")
        if key not in known:
            raise InvalidRequest(f"--set {item}: there is no setting {key}; `pagoda config show` lists them all.")
        given[key] = value
    given |= {key.replace("__", "."): value for key, value in flags.items()}
    return load_settings(given, os.environ, Path.cwd())


def settings_and_keys(args: argparse.Namespace) -> tuple[Settings, list[str]]:
    """The effective settings, and those of ``--set`` that name none of them: they are keys of a recipe."""
    from pagoda.core.configuration import options

    known = {option.key for option in options()}
    ours = [item for item in args.set if item.partition("=")[0] not in known]
    args.set = [item for item in args.set if item not in ours]
    return settings_from(args), ours


def ask_service(args: argparse.Namespace, ask: Callable[[JoinedDoor], Awaitable[Any]]) -> Any:
    """What this home's service answers; it is started if it does not run."""
    import asyncio

    from pagoda.application.client import home_door

    async def run() -> Any:
        async with home_door(settings_from(args), os.environ) as door:
            return await ask(door)

    return asyncio.run(run())


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    import json

    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")
