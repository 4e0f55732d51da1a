"""``pagoda logs``: prompts and answers that were kept (``log.content``)."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from pagoda.cli.context import add_json_flag, add_settings_flag, print_json, settings_from


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "logs",
        help="show and delete prompts and answers that were kept",
        description="Show and delete prompts and answers. They are kept only where log.content asks for it.",
        epilog="example: pagoda logs delete --user ada",
    )
    words = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    shown = words.add_parser("show", help="show what was said", epilog="example: pagoda logs show --key local")
    shown.add_argument("--request", metavar="ID", help="only of this request")
    shown.add_argument("--limit", type=int, default=20, help="at most so many, the newest first (default: 20)")
    shown.set_defaults(run=show)
    deleted = words.add_parser(
        "delete", help="delete what was said, for good", epilog="example: pagoda logs delete --user ada"
    )
    deleted.set_defaults(run=remove)
    for each in (shown, deleted):
        each.add_argument("--key", metavar="ID", help="only this key's; local is this machine's own user")
        each.add_argument("--user", metavar="NAME", help="only this user's, as clients name them")
        add_json_flag(each)
        add_settings_flag(each)


def show(args: argparse.Namespace) -> int:
    """Print what was said."""
    import asyncio

    from pagoda.core.storage.store import open_store
    from pagoda.service.contents.shelf import Whose, find

    async def ask() -> list[dict[str, Any]]:
        async with open_store(settings_from(args)) as store:
            return await find(store, Whose(args.key, args.user, args.request), max(1, args.limit))

    found = asyncio.run(ask())
    if args.json:
        print_json(found)
        return 0
    for row in found:
        who = f"{row['team']}/{row['key_id']}" + (f" for {row['user']}" if row["user"] else "")
        sys.stdout.write(f"{row['at']} {row['request_id']} {who} {row['model']} {row['status']}\n")
        sys.stdout.write(f"  > {row['prompt']}\n  < {row['answer']}\n")
    if not found:
        sys.stdout.write("Nothing was kept; log.content says what is.\n")
    return 0


def remove(args: argparse.Namespace) -> int:
    """Delete what was said."""
    import asyncio

    from pagoda.core.storage.store import open_store
    from pagoda.service.contents.shelf import Whose, forget

    async def ask() -> int:
        async with open_store(settings_from(args)) as store:
            return await forget(store, Whose(args.key, args.user))

    count = asyncio.run(ask())
    if args.json:
        print_json({"deleted": count})
    else:
        sys.stdout.write(f"{count} deleted.\n")
    return 0
