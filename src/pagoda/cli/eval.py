"""``pagoda eval``: how well a model does on a known set of tasks."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pagoda.cli.context import add_json_flag, add_settings_flag, settings_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from pagoda.core.runs import Run

_MODES = ("required", "auto", "unconstrained")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``pagoda eval``."""
    evaluation = subparsers.add_parser(
        "eval",
        help="evaluate a model on a set of tasks",
        description="Evaluate a model on a set of tasks.",
        epilog="example:\n  pagoda eval run bfcl --data data/bfcl --limit 20",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = evaluation.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="run a task",
        description="Run a task. If it is stopped or killed, the same command goes on where it was.",
        epilog="example:\n  pagoda eval run injections --strategies react",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tasks = run.add_subparsers(title="tasks", metavar="TASK", required=True)
    _add_bfcl(tasks)
    injections = _add_task(
        tasks,
        "injections",
        run_injections,
        "whether an agent obeys orders in the pages it reads; status 1 where a call was made without approval",
        "injections --strategies functions --limit 12",
    )
    multihop = _add_task(
        tasks,
        "multihop",
        run_multihop,
        "questions whose answer takes several searches, over a file in BeerQA's form",
        "multihop --data data/rag/beerqa.json --limit 20",
    )
    multihop.add_argument("--data", required=True, metavar="FILE", help="the file with questions and passages")
    for parser in (injections, multihop):
        parser.add_argument("--strategies", default="", metavar="A,B", help="how it acts: functions, react (both)")
        parser.add_argument("--turns", type=int, default=4, metavar="N", help="turns of the model at most (4)")
        parser.add_argument("--limit", type=int, default=0, metavar="N", help="items, evenly spread (all)")
        parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="length of a turn (256)")


def _add_bfcl(tasks: Any) -> None:
    bfcl = _add_task(
        tasks,
        "bfcl",
        run_bfcl,
        "function calling, single turn, over the files of the Berkeley Function-Calling Leaderboard",
        "bfcl --data data/bfcl --mode required --categories simple_python,multiple",
    )
    bfcl.add_argument("--data", required=True, metavar="DIR", help="the folder with the task's files")
    bfcl.add_argument("--mode", choices=_MODES, default="required", help="how calls are asked for (default: required)")
    bfcl.add_argument("--categories", default="", metavar="A,B", help="only these categories")
    bfcl.add_argument("--limit", type=int, default=0, metavar="N", help="items of a category, evenly spread (all)")
    bfcl.add_argument("--max-tokens", type=int, default=512, metavar="N", help="length of an answer (512)")


def _add_task(
    tasks: Any, name: str, run: Callable[[argparse.Namespace], int], does: str, example: str
) -> argparse.ArgumentParser:
    """A task with what all of them take."""
    parser: argparse.ArgumentParser = tasks.add_parser(
        name, help=does, description=f"{does[0].upper()}{does[1:]}.", epilog=f"example: pagoda eval run {example}"
    )
    parser.add_argument("--model", help="the model (default: the one that answers chats)")
    parser.add_argument("--parallel", type=int, default=4, metavar="N", help="items at once (4)")
    add_json_flag(parser)
    add_settings_flag(parser)
    parser.set_defaults(run=run)
    return parser


def run_bfcl(args: argparse.Namespace) -> int:
    """``pagoda eval run bfcl``."""
    from pathlib import Path

    more = {
        "data": str(Path(args.data).absolute()),
        "mode": args.mode,
        "categories": [name for name in args.categories.split(",") if name],
    }
    run = _carried_out(args, "bfcl", more)
    return 1 if run.status != "done" else _told(run, _bfcl_rows, as_json=args.json)


def run_injections(args: argparse.Namespace) -> int:
    """``pagoda eval run injections``."""
    run = _carried_out(args, "injections", _acting(args))
    if run.status != "done":
        return 1
    _told(run, _injection_rows, as_json=args.json)
    told = run.result["strategies"].values()
    if ran := sum(each[part]["ran"] for each in told for part in ("all", "without")):
        sys.stderr.write(f"{ran} calls were made that nobody approved: this must not happen; please report it.\n")
        return 1
    return 0


def run_multihop(args: argparse.Namespace) -> int:
    """``pagoda eval run multihop``."""
    from pathlib import Path

    from pagoda.logic.evaluation.dataset import digest_of

    data = str(Path(args.data).absolute())
    run = _carried_out(args, "multihop", {"data": data, "digest": digest_of(data), **_acting(args)})
    return 1 if run.status != "done" else _told(run, _multihop_rows, as_json=args.json)


def _acting(args: argparse.Namespace) -> dict[str, Any]:
    """The config that evaluations of agents share. Raises ``InvalidRequest``."""
    from pagoda.core.errors import InvalidRequest
    from pagoda.logic.agents.plan import STRATEGIES

    strategies = list(dict.fromkeys(name for name in args.strategies.split(",") if name)) or list(STRATEGIES)
    if not set(strategies) <= set(STRATEGIES):
        raise InvalidRequest(f"--strategies {args.strategies}: choose among {', '.join(STRATEGIES)}.")
    if args.turns < 1:
        raise InvalidRequest("--turns must be above 0.")
    return {"strategies": strategies, "turns": args.turns}


def _carried_out(args: argparse.Namespace, task: str, more: dict[str, Any]) -> Run:
    from pagoda.cli.runs import carry_out
    from pagoda.core.errors import InvalidRequest

    if min(args.limit, args.max_tokens - 1, args.parallel - 1) < 0:
        raise InvalidRequest("--limit must be 0 or more, --max-tokens and --parallel above 0.")
    settings = settings_from(args)
    config = {
        "model": args.model or settings.defaults.chat,
        "limit": args.limit,
        "max_tokens": args.max_tokens,
        "parallel": args.parallel,
        **more,
    }
    return carry_out(settings, task, config, as_json=args.json)


def _told(run: Run, rows: Callable[[Any], list[tuple[str, ...]]], *, as_json: bool) -> int:
    """Show what came of a run: ``rows`` makes a table of it, its heads first."""
    from pagoda.cli.runs import tell_result

    if as_json:
        tell_result(run)
        return 0
    from rich.console import Console
    from rich.table import Table

    heads, *lines = rows(run.result)
    table = Table(*heads)
    for line in lines:
        table.add_row(*line)
    Console().print(table)
    return 0


def _bfcl_rows(result: Any) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("category", "items", "called", "valid", "right tools", "right")]
    for name, count in (*result["categories"].items(), ("all", result["all"])):
        shares = [f"{count[word]} ({count[word] / max(count['items'], 1):.1%})" for word in ("valid", "names", "right")]
        rows.append((name, str(count["items"]), str(count["called"]), *shares))
    return rows


def _injection_rows(result: Any) -> list[tuple[str, ...]]:
    words = ("quoted", "answered", "asked", "ran")
    rows: list[tuple[str, ...]] = [("", "orders", "items", "read", "obeyed", "quoted", "task done", "wanted", "made")]
    for strategy, told in result["strategies"].items():
        parts = {**told["kinds"], **told["languages"], **told["signs"], "all": told["all"], "none": told["without"]}
        for name, count in parts.items():
            if count["items"]:
                obeyed = f"{count['obeyed']}{_share(count['share'])}"
                plain = [str(count[word]) for word in words]
                rows.append((strategy, name, str(count["items"]), str(count["read"]), obeyed, *plain))
    return rows


def _multihop_rows(result: Any) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("", "items", "exact", "contains", "searched twice", "support found", "recall", "failed")
    ]
    for strategy, told in result["strategies"].items():
        words = ("exact", "contains", "twice", "complete")
        shares = [f"{told[word]}{_share(told['shares'][word])}" for word in words]
        rows.append((strategy, str(told["items"]), *shares, f"{told['recall']:.1%}", str(told["failed"])))
    once = result["reference"]
    rows.append(("question", str(once["items"]), "", "", "", str(once["complete"]), f"{once['recall']:.1%}", ""))
    return rows


def _share(interval: dict[str, float] | None) -> str:
    """A share with its bounds, per cent."""
    return "" if interval is None else " ({value:.0%}, {low:.0%}-{high:.0%})".format(**interval)
