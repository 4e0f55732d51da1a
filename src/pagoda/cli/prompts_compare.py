"""``pagoda prompts compare``: variants of a prompt on a data set, with intervals, tests and a verdict."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pagoda.cli.context import settings_from

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pagoda.application.comparing import Plan
    from pagoda.cli.context import AddCommand
    from pagoda.core.settings import Settings


def add_compare(add: AddCommand) -> None:
    """Add the command to those of ``pagoda prompts``."""
    parser = add(
        "compare",
        run_compare,
        "compare prompts on a data set; the same command goes on with a comparison that was stopped",
        "compare a.yaml b.yaml --data reviews.tsv --map text=sentence --expected label --scorer exact",
    )
    parser.add_argument("prompts", metavar="[NAME=]PROMPT", nargs="+", help="variants, by the names in the report")
    add_data(parser)
    parser.add_argument("--models", metavar="A,B", help="ask each of these models (default: the service's)")
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="ask each case N times; shows the flicker")
    parser.add_argument("--report", metavar="FILE", help="where the HTML report goes too (default: with the run)")
    parser.add_argument("--report-language", default="en", choices=("en", "zh"), help="of report and verdict")


def add_data(parser: argparse.ArgumentParser) -> None:
    """What says which data is used, and how answers are scored."""
    parser.add_argument("--data", required=True, metavar="FILE", help="cases: .jsonl, .json, .csv or .tsv")
    parser.add_argument("--expected", metavar="COLUMN", help="the column of what is expected")
    parser.add_argument(
        "--map", action="append", default=[], metavar="VARIABLE=COLUMN", help="which column fills a variable"
    )
    parser.add_argument(
        "--replace", action="append", default=[], metavar="VALUE=WORD", help="what is expected, written otherwise"
    )
    parser.add_argument(
        "--scorer",
        action="append",
        metavar="SCORER",
        help="exact (default), contains, regex:PATTERN, numeric[:TOL], json[:FILE], bleu, rouge, similarity[:MIN], "
        "judge:CRITERIA, prefer:CRITERIA, python:MODULE:FUNCTION; the first one decides",
    )
    parser.add_argument("--var", action="append", default=[], metavar="NAME=VALUE", help="a variable, for all cases")
    parser.add_argument("--limit", type=int, metavar="N", help="take N cases, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    parser.add_argument("--encoding", default="utf-8", help="of the data: utf-8, utf-16, gb18030")
    parser.add_argument("--language", help="the language to ask in (default: each prompt's first)")
    parser.add_argument("--judge-model", metavar="MODEL", help="the model that judges (default: the service's)")
    parser.add_argument(
        "--concurrency", type=int, default=0, metavar="N", help="questions at once (default: as the engine likes)"
    )


def run_compare(args: argparse.Namespace) -> int:
    """Compare."""
    import json

    from pagoda.application.comparing import KIND, PAGE, REPORT, check_plan, plan_json
    from pagoda.application.registry import run_kinds
    from pagoda.cli.runs import follow, tell_result
    from pagoda.core.errors import InvalidRequest
    from pagoda.core.runs import RunRegistry, Runs

    if args.repeats < 1:
        raise InvalidRequest("--repeats must be a whole number above 0.")
    settings = settings_from(args)
    plan = plan_from(args, settings)
    total = check_plan(plan)
    runs = Runs(settings, RunRegistry(run_kinds()))
    run, after = runs.begin(KIND, plan_json(plan))
    if not args.json:
        sys.stderr.write(f"{total} questions, run {run.id}; stopped or killed, the same command goes on with it.\n")
    status = follow(runs, run.id, after=after, as_json=args.json)
    run = runs.get(run.id)
    if status or run.status != "done":
        return status
    folder = settings.runs_directory / run.id / "artifacts"
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    page = copied(folder / PAGE, args.report)
    if args.json:
        tell_result(run, page=page, **report)
        return 0
    _show(report)
    sys.stderr.write(f"The whole report is in {page}.\n")
    return 0


def plan_from(args: argparse.Namespace, settings: Settings) -> Plan:
    """The plan that the command's words make."""
    import asyncio

    from pagoda.application.comparing import Plan, prompt_entry
    from pagoda.application.prompting import open_prompts
    from pagoda.logic.evaluation.dataset import digest_of
    from pagoda.model.catalog.opening import open_shelf

    async def find() -> list[dict[str, Any]]:
        async with open_prompts(settings) as room:
            found = []
            for text in args.prompts:
                name, sign, which = text.partition("=")
                version = await room.find(which if sign else text, args.team)
                found.append(prompt_entry(name if sign else _short(text, version.reference), version))
            return found

    catalog = open_shelf(settings).catalog
    prompts = asyncio.run(find())
    named = args.models.split(",") if args.models else [settings.defaults.chat]
    return Plan(
        prompts=tuple(prompts),
        models=tuple(catalog.refer(name.strip()).id for name in named),
        data=data_of(args),
        digest=digest_of(args.data),
        scorers=tuple(args.scorer or ["exact"]),
        repeats=args.repeats,
        language=args.language,
        report_language=args.report_language,
        concurrency=args.concurrency,
        judge_model=args.judge_model,
        values=values_of(args, prompts),
    )


def data_of(args: argparse.Namespace) -> dict[str, Any]:
    """The data as a plan keeps it."""
    from pathlib import Path

    return {
        "path": str(Path(args.data).absolute()),
        "expected": args.expected,
        "columns": pairs(args.map, "--map"),
        "replaced": pairs(args.replace, "--replace"),
        "limit": args.limit,
        "seed": args.seed,
        "encoding": args.encoding,
    }


def pairs(items: Sequence[str], flag: str) -> dict[str, str]:
    """``a=b`` as a table. Raises ``InvalidRequest``."""
    from pagoda.core.errors import InvalidRequest

    found = {}
    for item in items:
        name, sign, value = item.partition("=")
        if not sign or not name:
            raise InvalidRequest(f"{flag} {item}: write it as name=value.")
        found[name] = value
    return found


def values_of(args: argparse.Namespace, prompts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Variables that are the same for every case, by the type that the first prompt which has them says."""
    from pagoda.logic.prompts.file import read_prompt
    from pagoda.logic.prompts.filling import value_from

    known = {
        variable.name: variable
        for entry in reversed(prompts)
        for variable in read_prompt(entry["source"], entry["name"]).prompt.variables
    }
    given = pairs(args.var, "--var")
    return {name: value_from(known[name], text) if name in known else text for name, text in given.items()}


def _short(text: str, reference: str) -> str:
    """A variant's name: its file's without the suffix, or its reference."""
    from pathlib import Path

    return Path(text).stem if text.endswith((".yaml", ".yml")) else reference


def copied(page: Path, wanted: str | None) -> str:
    """Where a report is, after it was copied to where it is wanted."""
    import shutil

    from pagoda.core.errors import InvalidRequest

    if wanted is None:
        return str(page)
    try:
        shutil.copyfile(page, wanted)
    except OSError as error:
        raise InvalidRequest(f"{wanted} cannot be written ({error.strerror}); the report is in {page}.") from error
    return wanted


def _show(report: Mapping[str, Any]) -> None:
    """The table, without the columns that have nothing to tell, and the verdict."""
    from rich.console import Console
    from rich.table import Table

    rows = [_cells(row, report["currency"]) for row in report["variants"]]
    shown = [name for name in rows[0] if name in _ALWAYS or any(row[name] not in ("0", "-", "") for row in rows)]
    table = Table(box=None, pad_edge=False)
    for name in shown:
        table.add_column(name, justify="left" if name == "variant" else "right", overflow="fold")
    for row in rows:
        table.add_row(*(row[name] for name in shown))
    console = Console(markup=False, highlight=False)
    console.print(table)
    for line in report["verdict"]:
        console.print(line, soft_wrap=True)


_ALWAYS = ("variant", "success", "p50/p95 s", "tokens")


def _cells(row: Mapping[str, Any], currency: str) -> dict[str, str]:
    from pagoda.service.limits.prices import spell_money

    first = row["scorers"][0]
    rate = first["rate"]
    return {
        "variant": row["name"],
        "success": "-" if rate is None else f"{100 * rate['value']:.1f} %",
        "95 %": "-" if rate is None else f"{100 * rate['low']:.1f}-{100 * rate['high']:.1f}",
        "no answer": str(row["unread"]),
        "unjudged": str(first["could_not_judge"]),
        "errors": str(row["errors"]),
        "flicker": "-" if row["flicker"] is None else f"{100 * row['flicker']:.1f} %",
        "p50/p95 s": "-" if row["p50"] is None else f"{row['p50']:.2f}/{row['p95']:.2f}",
        "tokens": f"{row['prompt_tokens'] + row['completion_tokens']:,}",
        "cost": spell_money(row["cost"], currency) if row["cost"] else "",
    }
