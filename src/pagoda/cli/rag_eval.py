"""``pagoda rag eval``: how well a collection is searched and answered from, by questions whose answers are known."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pagoda.cli.context import settings_from

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHARES = {
    "exact": "exactly the answer",
    "contains": "the answer stands in it",
    "cites_nothing": "cites nothing",
    "spans_holding": "cited spans that hold the answer",
    "withheld_though_told": "error: withheld, though told",
    "answered_though_not_told": "error: answered, though not told",
    "abstained_where_not_told": "withheld, where not told",
}


def add_exam(parser: argparse.ArgumentParser) -> None:
    """The command's own flags, beside the collection's and those of questions."""
    parser.add_argument("questions", metavar="FILE", help="JSON Lines: question, and document, text, places or answers")
    parser.add_argument("--answers", action="store_true", help="ask for answers too, and judge them")
    parser.add_argument("--parallel", type=int, default=4, metavar="N", help="questions at once (4)")


def run_eval(args: argparse.Namespace) -> int:
    """Ask all questions, in a run."""
    import asyncio
    from dataclasses import asdict
    from pathlib import Path

    from pagoda.application.examining import KIND, plan_exam
    from pagoda.application.keeping import with_records
    from pagoda.cli.runs import carry_out, tell_result
    from pagoda.core.errors import InvalidRequest
    from pagoda.logic.retrieval.book import CollectionBook
    from pagoda.logic.retrieval.question import MOST_HITS

    if not 1 <= args.limit <= MOST_HITS or args.parallel < 1:
        raise InvalidRequest(f"--limit is 1 to {MOST_HITS}, and --parallel 1 or more.")
    data = str(Path(args.questions).absolute())
    settings = settings_from(args)
    wishes = {
        "answers": args.answers,
        "method": args.method,
        "model": args.model or settings.defaults.chat,
        "floor": args.floor,
        "limit": args.limit,
        "parallel": args.parallel,
    }
    exam = asyncio.run(
        with_records(
            settings, lambda opened: plan_exam(CollectionBook(opened), args.team, args.collection, data, **wishes)
        )
    )
    run = carry_out(settings, KIND, asdict(exam), as_json=args.json)
    if run.status != "done":
        return 1
    if args.json:
        tell_result(run)
    else:
        _show(run.result)
    return 0


def _show(result: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("search", "recall@1", "recall@5", "mean reciprocal rank")
    for method, told in result["search"].items():
        table.add_row(method, *(_cell(told[name]) for name in ("recall_at_1", "recall_at_5", "mrr")))
    console.print(table)
    if "answers" in result:
        table = Table("answers", "share (95 %)", "of")
        for name, says in _SHARES.items():
            told = result["answers"][name]
            table.add_row(says, _cell(told), "" if told is None else str(told["of"]))
        console.print(table)
    sys.stdout.write(f"{result['questions']} questions, {result['unanswerable']} more that are not answerable.\n")
    if failed := result["failed"] + result.get("answers_failed", 0):
        sys.stderr.write(f"pagoda: {failed} could not be asked; the run's files say why.\n")


def _cell(told: Mapping[str, float] | None) -> str:
    return "-" if told is None else f"{told['value']:.3f} ({told['low']:.2f} to {told['high']:.2f})"
