"""``pagoda bench``: measure a model under load, here or at any OpenAI-compatible address."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pagoda.cli.context import add_settings_flag, settings_from

if TYPE_CHECKING:
    from pagoda.application.bench.engine import Plan

_ENDPOINTS = ("chat", "completions", "embeddings")


def register(commands: Any) -> None:
    """Add the command group."""
    group = commands.add_parser("bench", help="measure a model under load")
    inner = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = inner.add_parser(
        "engine",
        help="latency, throughput, goodput and failures under a given load",
        description="Measure a model of this machine's service, or of any OpenAI-compatible address (--url), under "
        "closed loops (--concurrency) or fixed rates (--rate). Ctrl-C prints what there is so far.",
        epilog="example: pagoda bench engine --concurrency 1,8,32 --requests 64 --goodput ttft=0.5,itl=0.05",
    )
    parser.add_argument("--model", default="", help="id or alias; at --url its name there (default: defaults.chat)")
    parser.add_argument("--url", default="", help="an OpenAI-compatible address instead of this machine's service")
    parser.add_argument("--key-env", default="", metavar="VAR", help="environment variable that holds its API key")
    parser.add_argument("--engine", default="", help="run the model on this engine kind for the measurement")
    parser.add_argument("--endpoint", choices=_ENDPOINTS, default="chat", help="what to ask (default: chat)")
    load = parser.add_argument_group("load")
    load.add_argument("--concurrency", type=_counts, metavar="N,...", help="clients that ask again when answered")
    load.add_argument("--rate", type=_rates, metavar="R,...", help="requests a second, whether answered or not")
    load.add_argument("--arrivals", choices=("poisson", "constant"), default="poisson", help="spacing at a rate")
    load.add_argument("--requests", type=_count, metavar="N", help="requests of each load (default: 64, or --seconds)")
    load.add_argument("--seconds", type=_positive, metavar="S", help="time in which a load's requests may begin")
    load.add_argument("--warmup", type=_whole, default=0, metavar="N", help="requests before that are not counted")
    load.add_argument("--timeout", type=_positive, default=600.0, metavar="S", help="time a request may take (600)")
    asked = parser.add_argument_group("requests")
    asked.add_argument("--input-tokens", type=_count, default=512, metavar="N", help="of each prompt (default: 512)")
    asked.add_argument("--output-tokens", type=_count, default=256, metavar="N", help="of each answer (default: 256)")
    asked.add_argument("--shared-prefix", type=_whole, default=0, metavar="N", help="tokens all prompts begin with")
    asked.add_argument("--dataset", type=Path, metavar="FILE", help="JSON Lines of prompt or messages, max_tokens")
    asked.add_argument("--temperature", type=float, default=0.0, help="0 is greedy, and the default")
    asked.add_argument("--seed", type=int, help="the same prompts and arrivals again (default: drawn, and reported)")
    shown = parser.add_argument_group("results")
    shown.add_argument("--goodput", type=_bound, metavar="ttft=S,itl=S", help="count requests that keep these bounds")
    shown.add_argument("--json", nargs="?", const="-", metavar="FILE", help="write JSON there, without FILE to stdout")
    shown.add_argument("--plot", type=Path, metavar="FILE", help="draw latency and throughput (.svg or .png)")
    add_settings_flag(parser)
    parser.set_defaults(run=run_engine)


def run_engine(args: argparse.Namespace) -> int:
    """Measure a model."""
    import os

    from pagoda.application.bench.plot import check_plot, draw
    from pagoda.application.bench.service import Place, measure
    from pagoda.cli.bench_view import print_table, progress
    from pagoda.core.errors import InvalidRequest

    settings = settings_from(args)
    if args.url and not args.model:
        raise InvalidRequest("--url needs --model: the model's name at that address.", param="model")
    if args.url and args.engine:
        raise InvalidRequest("--engine is for models of this machine; an address has its own engine.", param="engine")
    if args.key_env and args.key_env not in os.environ:
        raise InvalidRequest(f"--key-env {args.key_env}: there is no such environment variable.", param="key_env")
    if args.plot:
        check_plot(args.plot)
    place = Place(url=args.url, key=os.environ.get(args.key_env, ""), engine=args.engine)
    plan = _plan(args)
    with progress() as watch:
        report = measure(settings, os.environ, place, plan, watch)
    data = report.data | {"interrupted": report.interrupted}
    if args.json != "-":
        print_table(data)
    if args.json:
        _write_json(data, args.json)
    if args.plot and data.get("loads"):
        draw(data, args.plot)
    return 130 if report.interrupted else 0


def _plan(args: argparse.Namespace) -> Plan:
    import random

    from pagoda.application.bench.engine import Plan
    from pagoda.application.bench.figures import Bound
    from pagoda.application.bench.prompts import Request, read_dataset
    from pagoda.application.bench.schedule import Closed, Length, Load, Open
    from pagoda.core.errors import InvalidRequest

    loads: list[Load] = [Closed(number) for number in args.concurrency or ()]
    loads += [Open(rate, args.arrivals) for rate in args.rate or ()]
    if args.shared_prefix > args.input_tokens:
        raise InvalidRequest("--shared-prefix cannot be longer than --input-tokens.", param="shared_prefix")
    request = Request(
        endpoint=args.endpoint,
        model=args.model,
        input_tokens=args.input_tokens,
        output_tokens=args.output_tokens,
        shared_prefix=args.shared_prefix,
        temperature=args.temperature,
        seed=random.SystemRandom().randrange(2**31) if args.seed is None else args.seed,
        dataset=read_dataset(args.dataset, args.endpoint) if args.dataset else (),
    )
    requests = args.requests if args.requests or args.seconds else 64
    return Plan(
        request=request,
        loads=tuple(loads) or (Closed(1),),
        length=Length(requests, args.seconds),
        warmup=args.warmup,
        bound=Bound(**args.goodput) if args.goodput else None,
        timeout_seconds=args.timeout,
    )


def _write_json(data: dict[str, Any], place: str) -> None:
    import json

    from pagoda.core.errors import StoreError

    text = json.dumps(data, ensure_ascii=False, indent=2) + "\n"
    if place == "-":
        sys.stdout.write(text)
        return
    try:
        Path(place).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{place} cannot be written: {error.strerror}.") from error


def _whole(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError("must be more than 0")
    return number


def _counts(text: str) -> list[int]:
    return [_count(part) for part in text.split(",")]


def _rates(text: str) -> list[float]:
    return [_positive(part) for part in text.split(",")]


def _bound(text: str) -> dict[str, float]:
    names = {"ttft": "first", "itl": "gap"}
    pairs = dict(part.partition("=")[::2] for part in text.split(","))
    if not set(pairs) <= set(names):
        raise argparse.ArgumentTypeError("write it as ttft=0.5,itl=0.05 (seconds), or one of the two")
    return {names[name]: _positive(value) for name, value in pairs.items()}
