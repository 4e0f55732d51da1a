"""``pagoda prompts improve``: search for better examples and instructions, believed only if held-out cases agree."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pagoda.cli.context import settings_from
from pagoda.cli.prompts_compare import add_data, copied, plan_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pagoda.cli.context import AddCommand


def add_improve(add: AddCommand) -> None:
    """Add the command to those of ``pagoda prompts``."""
    parser = add(
        "improve",
        run_improve,
        "search for better examples, their order and instructions",
        "improve mood.yaml --data train.jsonl --expected label --trials 30 --out better.yaml",
    )
    parser.add_argument("prompts", metavar="PROMPT", nargs=1)
    add_data(parser)
    parser.add_argument("--model", dest="models", help="the model to ask (default: the service's)")
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="candidates to try (default: 20)")
    parser.add_argument("--shots", type=int, default=4, metavar="N", help="examples at most (default: 4)")
    parser.add_argument("--pool", type=int, default=16, metavar="N", help="cases kept as examples (default: 16)")
    parser.add_argument("--instructions", metavar="FILE", help="instruction variants: a YAML list of texts")
    parser.add_argument("--out", metavar="FILE", help="where the better prompt goes, if there is one")
    parser.add_argument("--report", metavar="FILE", help="where the HTML report goes too (default: with the run)")
    parser.add_argument("--report-language", default="en", choices=("en", "zh"), help="of report and verdict")
    parser.set_defaults(repeats=1)


def run_improve(args: argparse.Namespace) -> int:
    """Search; status 1 where nothing better was found."""
    import json

    from pagoda.application.comparing import check_plan, plan_json
    from pagoda.application.improving import BEST, KIND, PAGE, REPORT
    from pagoda.application.registry import run_kinds
    from pagoda.cli.runs import follow, tell_result
    from pagoda.core.errors import InvalidRequest
    from pagoda.core.runs import RunRegistry, Runs

    if min(args.trials, args.shots + 1, args.pool + 1) < 1:
        raise InvalidRequest("--trials must be a whole number above 0, --shots and --pool 0 at least.")
    if args.expected is None and args.pool:
        raise InvalidRequest("Name the column of what is expected with --expected; it answers the examples.")
    settings = settings_from(args)
    plan = plan_from(args, settings)
    check_plan(plan)
    hunt = {
        "instructions": _instructions(args.instructions),
        "pool": args.pool,
        "most_shots": args.shots,
        "trials": args.trials,
    }
    runs = Runs(settings, RunRegistry(run_kinds()))
    run, after = runs.begin(KIND, {**plan_json(plan), "hunt": hunt})
    if not args.json:
        sys.stderr.write(
            f"{args.trials} candidates, run {run.id}; stopped or killed, the same command goes on with it.\n"
        )
    status = follow(runs, run.id, after=after, as_json=args.json)
    run = runs.get(run.id)
    if status or run.status != "done":
        return status
    folder = settings.runs_directory / run.id / "artifacts"
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    page = copied(folder / PAGE, args.report)
    kept = copied(folder / BEST, args.out) if report["kept"] else None
    if args.json:
        tell_result(run, page=page, prompt=kept, **report)
    else:
        _show(report, page, kept)
    return 0 if report["kept"] else 1


def _show(report: Mapping[str, Any], page: str, kept: str | None) -> None:
    base, best = report["training"]["base"], report["training"]["best"]
    sys.stdout.write(f"training: {100 * base:.1f} % -> {100 * best:.1f} % ({len(report['tried'])} candidates)\n")
    rates = [row["scorers"][0]["rate"] for row in report["held_out"]["variants"]]
    if all(rates):
        told = " -> ".join(f"{100 * r['value']:.1f} % ({100 * r['low']:.1f}-{100 * r['high']:.1f})" for r in rates)
        sys.stdout.write(f"held out: {told}\n")
    if kept is not None:
        sys.stdout.write(f"The held-out part agrees: the better prompt is in {kept}.\n")
    elif not report["changed"]:
        sys.stdout.write("No candidate was better than the prompt itself.\n")
    else:
        sys.stdout.write("The held-out part does not confirm it; nothing is kept.\n")
    for line in report["verdict"]:
        sys.stdout.write(f"  {line}\n")
    sys.stderr.write(f"The whole report is in {page}.\n")


def _instructions(path: str | None) -> list[str]:
    from pathlib import Path

    import yaml

    from pagoda.core.errors import InvalidRequest

    if path is None:
        return []
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidRequest(f"{path} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InvalidRequest(f"{path} must hold a YAML list of texts.")
    return found
