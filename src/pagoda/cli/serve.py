"""``pagoda serve``: the HTTP service with its page."""

from __future__ import annotations

import argparse
from typing import Any

from pagoda.cli.context import add_settings_flag, settings_from


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "serve",
        help="serve the API and the chat page",
        description="Serve the OpenAI-compatible API, the service API and the chat page until Ctrl-C or SIGTERM.",
        epilog="example: pagoda serve --port 9000 --model ./my-checkpoint",
    )
    parser.add_argument("--host", help="address to bind (default 127.0.0.1); elsewhere every request needs a key")
    parser.add_argument("--port", help="port to bind; 0 takes a free one (default 8000)")
    parser.add_argument("--workers", help="processes that serve requests behind the port (default 1)")
    parser.add_argument(
        "--model",
        help="model to serve by default: an id, a GGUF file, a checkpoint's folder, org/name; picks its engine",
    )
    parser.add_argument("--embedded", action="store_true", help=argparse.SUPPRESS)
    add_settings_flag(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    import os

    flags = {"server__host": args.host, "server__port": args.port, "server__workers": args.workers}
    settings = settings_from(args, **flags)
    from pagoda.application import serving

    return serving.run(settings, os.environ, embedded=args.embedded, model=args.model)
