"""``pagoda chat``: talk to a model in the terminal."""

from __future__ import annotations

import argparse
from typing import Any

from pagoda.cli.context import add_settings_flag, settings_from


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "chat",
        help="talk to a model in the terminal",
        description="Talk to a model. Ctrl-C stops a reply; at the prompt it leaves, as Ctrl-D does.",
        epilog="example: pagoda chat smollm2-135m-instruct --system 'Answer in one sentence.'",
    )
    parser.add_argument("model", nargs="?", help="model id or alias (default: defaults.chat)")
    parser.add_argument("--system", help="system prompt")
    parser.add_argument("--temperature", type=float, help="0 is greedy")
    parser.add_argument("--max-tokens", type=int, help="new tokens at most in a reply")
    parser.add_argument("-m", "--message", help="ask this one thing, print the answer, leave")
    parser.add_argument("--url", help="talk to the service at this address instead of this machine's own")
    parser.add_argument("--key", help="API key for --url (default: PAGODA_API_KEY)")
    add_settings_flag(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Talk until the user leaves."""
    import os

    settings = settings_from(args, client__key=args.key)
    from pagoda.application.chat import ChatOptions, talk

    options = ChatOptions(args.model, args.system, args.temperature, args.max_tokens, args.message, args.url)
    return talk(settings, os.environ, options)
