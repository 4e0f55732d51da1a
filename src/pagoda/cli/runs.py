"""``pagoda runs``: see, watch, resume and cancel long work."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pagoda.cli.context import add_json_flag, add_settings_flag, print_json, settings_from

if TYPE_CHECKING:
    from pagoda.core.runs import Comparison, Run, Runs
    from pagoda.core.settings import Settings

_STATUSES = ("created", "running", "done", "failed", "cancelled", "interrupted", "broken")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``runs`` and its commands."""
    group = subparsers.add_parser(
        "runs", help="see, watch, resume and cancel long work", description="See, watch, resume and cancel long work."
    )
    commands = group.add_subparsers(dest="runs_command", metavar="COMMAND", required=True)

    listing = _add(commands, "list", "list runs, newest first", "pagoda runs list --status running", list_runs)
    listing.add_argument("--kind", help="only runs of this kind, for example sft")
    listing.add_argument("--status", choices=_STATUSES, help="only runs with this status")
    listing.add_argument("--limit", type=_positive, default=50, help="at most this many (default: 50)")

    show = _add(commands, "show", "show everything about a run", "pagoda runs show 7f3a --compare 09bc", show_run)
    _add_run(show)
    show.add_argument("--compare", metavar="OTHER", help="show in what the two runs differ instead")

    watching = _add(commands, "watch", "follow a run until it ends", "pagoda runs watch 7f3a", watch_run)
    _add_run(watching)

    resume = _add(commands, "resume", "continue a run that stopped", "pagoda runs resume 7f3a", resume_run)
    _add_run(resume)
    resume.add_argument("--detach", action="store_true", help="do not watch it")

    cancel = _add(commands, "cancel", "stop a run; it can be resumed", "pagoda runs cancel 7f3a", cancel_run)
    _add_run(cancel)
    cancel.add_argument("--now", action="store_true", help="end its process at once instead of at its next step")

    # Without help= it is not listed: people start runs by the command that creates them.
    execute = commands.add_parser("exec", description="Execute a run in this process; started by Pagoda itself.")
    _add_run(execute)
    execute.add_argument("--home", help="the PAGODA_HOME of the run")
    execute.set_defaults(run=execute_run)


def list_runs(args: argparse.Namespace) -> int:
    """``pagoda runs list``."""
    found = _runs(args).find(kind=args.kind, status=args.status, limit=args.limit)
    if args.json:
        print_json([run.to_json() for run in found])
        return 0
    from pagoda.cli.runs_view import print_runs

    print_runs(found)
    return 0


def show_run(args: argparse.Namespace) -> int:
    """``pagoda runs show``."""
    runs = _runs(args)
    run = runs.get(runs.resolve(args.id))
    if args.compare:
        return _show_comparison(runs.compare(run.id, runs.resolve(args.compare)), as_json=args.json)
    if args.json:
        print_json(run.to_json())
        return 0
    from pagoda.cli.runs_view import print_run

    print_run(run)
    return 0


def watch_run(args: argparse.Namespace) -> int:
    """``pagoda runs watch``."""
    runs = _runs(args)
    return follow(runs, runs.resolve(args.id), as_json=args.json)


def resume_run(args: argparse.Namespace) -> int:
    """``pagoda runs resume``."""
    runs = _runs(args)
    run_id = runs.resolve(args.id)
    place = runs.place_now(run_id)
    run = runs.resume(run_id)
    if args.detach:
        _say(run, f"The run {run_id} goes on; watch it with `pagoda runs watch {run_id}`.", as_json=args.json)
        return 0
    return follow(runs, run_id, after=place, as_json=args.json)


def cancel_run(args: argparse.Namespace) -> int:
    """``pagoda runs cancel``."""
    runs = _runs(args)
    run_id = runs.resolve(args.id)
    run = runs.cancel(run_id, at_once=args.now)
    if run.ended:
        _say(run, f"The run {run_id} is cancelled.", as_json=args.json)
    else:
        _say(run, f"The run {run_id} was asked to stop and will at its next step.", as_json=args.json)
    return 0


def execute_run(args: argparse.Namespace) -> int:
    """``pagoda runs exec``: what ``Runs.start`` calls in a process of its own."""
    from dataclasses import replace
    from pathlib import Path

    from pagoda.application.registry import run_kinds
    from pagoda.core.runs import RunRegistry, execute

    settings = settings_from(args)
    if args.home:
        settings = replace(settings, home=Path(args.home))
    run = execute(args.id, RunRegistry(run_kinds()), settings)
    return 0 if run.status == "done" else 1


def follow(runs: Runs, run_id: str, *, after: str | None = None, as_json: bool = False) -> int:
    """Show a run until it ends, for every command that starts one; the exit status says whether it is done.

    Ctrl-C stops the watching, not the run; a second one soon after cancels it.
    """
    from pagoda.cli.runs_view import view_for
    from pagoda.cli.runs_watch import follow_with

    return follow_with(runs, run_id, view_for(run_id, as_json=as_json), after=after)


def carry_out(settings: Settings, kind: str, config: dict[str, Any], *, seed: int | None = None, as_json: bool) -> Run:
    """Begin a run, or go on with the one of that config that did not end, show it until it ends, and give it."""
    from pagoda.application.registry import run_kinds
    from pagoda.core.runs import RunRegistry, Runs

    runs = Runs(settings, RunRegistry(run_kinds()))
    run, after = runs.begin(kind, config, seed=seed)
    if not as_json:
        sys.stderr.write(f"Run {run.id}; stopped or killed, the same command goes on with it.\n")
    follow(runs, run.id, after=after, as_json=as_json)
    return runs.get(run.id)


def tell_result(run: Run, **more: Any) -> None:
    """What came of a run, beside ``more`` of it, as the last of its lines of JSON."""
    import json

    told = {"type": "result", "run": run.id, **(run.result or {}), **more}
    sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")


def _show_comparison(comparison: Comparison, *, as_json: bool) -> int:
    if as_json:
        print_json(comparison.to_json())
        return 0
    from pagoda.cli.runs_view import print_comparison

    print_comparison(comparison)
    return 0


def _say(run: Run, sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json(run.to_json())
    else:
        print(sentence)


def _runs(args: argparse.Namespace) -> Runs:
    from pagoda.application.registry import run_kinds
    from pagoda.core.runs import RunRegistry, Runs

    return Runs(settings_from(args), RunRegistry(run_kinds()))


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str, example: str, run: object
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_json_flag(parser)
    add_settings_flag(parser)
    parser.set_defaults(run=run)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="RUN", help="the id of the run, or its last four characters")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return int(text)
