"""``pagoda drain``: end the service of this home when it has finished what it was asked."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any

from pagoda.cli.context import add_json_flag, add_settings_flag, print_json, settings_from


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "drain",
        help="end the service without losing a request",
        description="Have the service of this home take no new work, finish what it was asked, and exit; wait for it.",
        epilog="example: pagoda drain --no-wait",
    )
    parser.add_argument("--no-wait", action="store_true", help="do not wait until the service has ended")
    add_json_flag(parser)
    add_settings_flag(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, and wait."""
    import psutil

    from pagoda.application.joining import join_running
    from pagoda.core.errors import Unavailable
    from pagoda.service.crew import read_crew
    from pagoda.service.presence import Presence

    settings = settings_from(args)
    notice, crew = Presence(settings.home).find(), read_crew(settings.home)
    pid = crew.captain if crew is not None else None if notice is None else notice.pid

    async def ask() -> None:
        door = join_running(settings)
        if door is None:
            raise Unavailable(f"No service of {settings.home} is running; nothing is to be ended.")
        try:
            await door.drain()
        finally:
            await door.close()

    asyncio.run(ask())
    ended = False
    if pid is not None and not args.no_wait:
        server = settings.server
        try:
            psutil.Process(pid).wait(server.drain_grace_seconds * 2 + server.drain_seconds + 30)
        except psutil.NoSuchProcess:
            pass  # it was faster
        except psutil.TimeoutExpired as error:
            raise Unavailable(f"Process {pid} has not ended in time; look at its log.") from error
        ended = True
    if args.json:
        print_json({"pid": pid, "ended": ended})
    else:
        sys.stdout.write("The service has ended.\n" if ended else "The service is ending.\n")
    return 0
