"""``pagoda eval``: how well a model does on a known set of tasks."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pagoda.cli.context import add_json_flag, add_settings_flag, print_json, settings_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pagoda.core.runs import Run, Runs

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
        description="Run a task: bfcl (function calling, single turn). If it is stopped or killed, the same command "
        "goes on where it was.",
        epilog="example:\n  pagoda eval run bfcl --data data/bfcl --mode required --categories simple_python,multiple",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("task", choices=("bfcl",), help="the task")
    run.add_argument("--data", required=True, metavar="DIR", help="the folder with the task's files")
    run.add_argument("--model", help="the model (default: the one that answers chats)")
    run.add_argument("--mode", choices=_MODES, default="required", help="how calls are asked for (default: required)")
    run.add_argument("--categories", default="", metavar="A,B", help="only these categories")
    run.add_argument("--limit", type=int, default=0, metavar="N", help="items of a category, evenly spread (all)")
    run.add_argument("--max-tokens", type=int, default=512, metavar="N", help="length of an answer (512)")
    run.add_argument("--parallel", type=int, default=4, metavar="N", help="items at once (4)")
    add_json_flag(run)
    add_settings_flag(run)
    run.set_defaults(run=run_task)


def run_task(args: argparse.Namespace) -> int:
    """``pagoda eval run``."""
    from pathlib import Path

    from pagoda.application.registry import run_kinds
    from pagoda.cli.runs import follow
    from pagoda.core.errors import InvalidRequest
    from pagoda.core.runs import RunRegistry, Runs

    if min(args.limit, args.max_tokens - 1, args.parallel - 1) < 0:
        raise InvalidRequest("--limit must be 0 or more, --max-tokens and --parallel above 0.")
    settings = settings_from(args)
    config: dict[str, Any] = {
        "data": str(Path(args.data).absolute()),
        "model": args.model or settings.defaults.chat,
        "mode": args.mode,
        "categories": [name for name in args.categories.split(",") if name],
        "limit": args.limit,
        "max_tokens": args.max_tokens,
        "parallel": args.parallel,
    }
    runs = Runs(settings, RunRegistry(run_kinds()))
    run = _begin(runs, args.task, config)
    if status := follow(runs, run.id, as_json=args.json):
        return status
    return _conclude(runs.get(run.id), as_json=args.json)


def _begin(runs: Runs, task: str, config: Mapping[str, Any]) -> Run:
    """The run that was begun with this very config and has not ended well, or a new one."""
    before = next((run for run in runs.find(kind=task) if dict(run.config) == config), None)
    if before is None or before.status == "done":
        return runs.start(runs.create(task, dict(config)).id)
    if before.status in ("created", "running") and before.process is not None:
        return before
    return runs.resume(before.id)


def _conclude(run: Run, *, as_json: bool) -> int:
    if as_json:
        print_json({"run": run.id, **run.result})
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("category", "items", "called", "valid", "right tools", "right")
    for name, count in (*run.result["categories"].items(), ("all", run.result["all"])):
        shares = [f"{count[word]} ({count[word] / max(count['items'], 1):.1%})" for word in ("valid", "names", "right")]
        table.add_row(name, str(count["items"]), str(count["called"]), *shares)
    Console().print(table)
    return 0
