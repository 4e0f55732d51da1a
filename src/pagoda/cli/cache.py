"""``pagoda cache``: what the response cache holds, and forgetting it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from pagoda.cli.context import add_json_flag, add_settings_flag, ask_service, print_json, settings_from


def register(commands: Any) -> None:
    """Add the command group."""
    group = commands.add_parser(
        "cache",
        help="the response cache: show, purge, calibrate",
        description="The response cache.",
        epilog="example: pagoda cache show",
    )
    words = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    showing = words.add_parser(
        "show",
        help="say what is kept",
        description="Say where answers are kept, how many, and whether the store works.",
        epilog="example: pagoda cache show --json",
    )
    showing.set_defaults(run=show)
    purging = words.add_parser(
        "purge",
        help="forget answers",
        description="Forget the answers of a tenant, a model, both together, or all.",
        epilog="example: pagoda cache purge --model smollm2-135m-instruct",
    )
    purging.add_argument("--tenant", metavar="NAME", help="only this tenant's")
    purging.add_argument("--model", metavar="MODEL", help="only this model's, by id or alias")
    purging.add_argument("--all", action="store_true", help="everybody's, of all models")
    purging.set_defaults(run=purge)
    calibrating = words.add_parser(
        "calibrate",
        help="measure how often the semantic cache would be wrong",
        description="Measure the semantic cache on labelled pairs with the default embedding model; keep the outcome.",
        epilog="example: pagoda cache calibrate --set cache.semantic_max_false_hits=0.02",
    )
    calibrating.set_defaults(run=calibrate)
    for parser in (showing, purging, calibrating):
        add_json_flag(parser)
        add_settings_flag(parser)


def show(args: argparse.Namespace) -> int:
    """Print the state of the service's cache."""
    from pagoda.model.catalog.disk import spell_bytes

    state = ask_service(args, lambda door: door.cache_state())
    if args.json:
        print_json(state)
        return 0
    bound = f" of {spell_bytes(state['max_bytes'])}" if state["max_bytes"] is not None else ""
    works = "" if state["working"] else "; it does not answer, and nothing is cached until it does"
    place = "in the service process" if state["kind"] == "embedded" else "in Redis"
    sys.stdout.write(f"{state['entries']} answers, {spell_bytes(state['bytes'])}{bound}, kept {place}{works}.\n")
    if state["semantic"]:
        sys.stdout.write(state["semantic"] + "\n")
    return 0


def purge(args: argparse.Namespace) -> int:
    """Forget answers."""
    from pagoda.core.errors import InvalidRequest
    from pagoda.model.catalog.disk import spell_bytes

    named = args.tenant is not None or args.model is not None
    if args.all == named:
        raise InvalidRequest("Name what to forget: --tenant, --model or both; or --all.")
    purged = ask_service(args, lambda door: door.purge_cache(args.tenant, args.model))
    if args.json:
        print_json(purged)
        return 0
    sys.stdout.write(f"Forgot {purged['entries']} answers, {spell_bytes(purged['bytes'])}.\n")
    return 0


def calibrate(args: argparse.Namespace) -> int:
    """Measure, keep and print the false-hit table."""
    import asyncio
    import os
    from dataclasses import asdict

    from pagoda.application.calibration import calibrate_home

    settings = settings_from(args)
    found = asyncio.run(calibrate_home(settings, os.environ))
    if args.json:
        print_json(asdict(found))
        return 0
    allowed = settings.cache.semantic_max_false_hits
    sys.stdout.write(f"Embedding model {found.approval.model}, {allowed:.1%} false hits allowed.\n")
    sys.stdout.write(f"{'':24}{'embeddings alone':>30}{'with the guard':>30}\n")
    sys.stdout.write(f"{'threshold':24}{found.bare.threshold:>30.4f}{found.guarded.threshold:>30.4f}\n")
    columns = [
        [
            *each.rates,
            *(each.total(same=same, language=language) for same in (False, True) for language in ("en", "zh")),
        ]
        for each in (found.bare, found.guarded)
    ]
    for row in zip(*columns, strict=True):
        cells = "".join(
            f"{f'{rate.hits}/{rate.pairs} = {rate.share:.1%} [{rate.interval[0]:.1%}, {rate.interval[1]:.1%}]':>30}"
            for rate in row
        )
        sys.stdout.write(f"{row[0].kind + ', ' + row[0].language:24}{cells}\n")
    said = (
        f"The semantic cache stays off: {found.approval.verdict}"
        if found.approval.verdict
        else ("The semantic cache may be used on routes set to semantic, once the service is started again.")
    )
    sys.stdout.write(said + "\n")
    return 0
