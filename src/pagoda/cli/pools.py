"""``pagoda pools``: the replicas behind a model name."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from pagoda.cli.context import add_json_flag, add_settings_flag, ask_service, print_json


def register(commands: Any) -> None:
    """Add the command group."""
    group = commands.add_parser(
        "pools",
        help="pools of replicas: list, add, remove, drain, resume",
        description="The replicas behind a model name.",
        epilog="example: pagoda pools list",
    )
    words = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = words.add_parser(
        "list",
        help="show pools and their replicas",
        description="Show every pool with the state of its replicas.",
        epilog="example: pagoda pools list --json",
    )
    listing.set_defaults(run=list_pools)
    adding = words.add_parser(
        "add",
        help="register a replica",
        description="Register a replica; it is kept over a restart.",
        epilog="example: pagoda pools add big --url http://10.0.0.7:8000/v1 --model qwen --key-env VLLM_KEY",
    )
    adding.add_argument("pool", metavar="POOL")
    adding.add_argument("--model", required=True, help="name of the model, at the address or on this machine")
    adding.add_argument("--url", default="", help="OpenAI-compatible address up to /v1")
    adding.add_argument("--key-env", default="", metavar="NAME", help="environment variable that holds its key")
    adding.add_argument("--weight", type=float, default=1.0, help="share of the requests")
    adding.add_argument("--zone", default="", help="where it stands")
    adding.set_defaults(run=add)
    for word, help_, sentence in (
        ("remove", "remove a registered replica", "Remove a replica that was registered; it finishes what it has."),
        ("drain", "give a replica nothing new", "Give a replica nothing new; it finishes what it has."),
        ("resume", "give a drained replica requests again", "Give a drained replica requests again."),
    ):
        parser = words.add_parser(
            word, help=help_, description=sentence, epilog=f"example: pagoda pools {word} big 10.0.0.7:8000"
        )
        parser.add_argument("pool", metavar="POOL")
        parser.add_argument("replica", metavar="REPLICA")
        parser.set_defaults(run=steer, action=word)
        _add_flags(parser)
    for parser in (listing, adding):
        _add_flags(parser)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add_json_flag(parser)
    add_settings_flag(parser)


def list_pools(args: argparse.Namespace) -> int:
    """Print all pools."""
    pools = ask_service(args, lambda door: door.pools())
    if args.json:
        print_json(pools)
        return 0
    if not pools:
        sys.stdout.write("There are no pools; pagoda.toml declares them under [pools.NAME].\n")
    for pool in pools:
        sys.stdout.write(f"{pool['name']}  ({pool['task']}, {pool['policy']})\n")
        for replica in pool["replicas"]:
            why = f"  {replica['reason']}" if replica["reason"] else ""
            sys.stdout.write(
                f"  {replica['id']:32}{replica['state']:10}{replica['circuit']:10}"
                f"{replica['outstanding']:>5} of {replica['capacity']}{why}\n"
            )
    return 0


def add(args: argparse.Namespace) -> int:
    """Register a replica."""
    values = {name: getattr(args, name) for name in ("model", "url", "key_env", "weight", "zone")}
    return _steered(args, {"action": "add", "pool": args.pool, "values": values}, "has joined")


def steer(args: argparse.Namespace) -> int:
    """Remove, drain or resume a replica."""
    said = {"remove": "has left", "drain": "takes nothing new", "resume": "takes requests again"}[args.action]
    return _steered(args, {"action": args.action, "pool": args.pool, "replica": args.replica}, said)


def _steered(args: argparse.Namespace, order: dict[str, Any], said: str) -> int:
    from pagoda.service.routing.steering import PoolOrder

    replica = ask_service(args, lambda door: door.steer_pool(PoolOrder(**order)))
    if args.json:
        print_json(replica)
        return 0
    sys.stdout.write(f"{replica['id']} of {args.pool} {said}; {replica['outstanding']} requests are on it.\n")
    return 0
