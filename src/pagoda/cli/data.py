"""``pagoda data``: training data checked, filtered, freed of duplicates, multiplied, before a token is spent on it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pagoda.cli.context import command_group, print_json, settings_from

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pagoda.model.data.augmentation import Plan
    from pagoda.model.data.reading import DataSet
    from pagoda.model.data.report import Count, Fault

_FORMS = ("chat", "completion", "preference", "classification", "text")


def register(commands: Any) -> None:
    """Add the command group."""
    add = command_group(
        commands,
        "data",
        help_="training data: check, filter, dedup, augment",
        about="Look at training data and clean it: JSONL, JSON, CSV, TSV, Parquet, or hub:OWNER/NAME/SUBSET#SPLIT.",
        example="check rows.jsonl",
    )
    check = add(
        "check", run_check, "report on rows and what is wrong with them", "check rows.jsonl --against test.jsonl"
    )
    check.add_argument("--show", type=int, default=20, metavar="N", help="findings to show (default 20)")
    filtering = add("filter", run_filter, "keep the good rows", "filter rows.jsonl --out good.jsonl --languages zh,en")
    filtering.add_argument("--remove", metavar="A,B", help="reasons that remove a row (default: all but personal data)")
    filtering.add_argument("--languages", default="", metavar="A,B", help="languages that stay (default: all)")
    filtering.add_argument("--min-chars", type=int, default=0, metavar="N", help="characters at least")
    filtering.add_argument("--max-chars", type=int, default=0, metavar="N", help="characters at most (default: any)")
    dedup = add("dedup", run_dedup, "keep one of rows that repeat", "dedup rows.jsonl --out unique.jsonl")
    for parser in (check, filtering):
        parser.add_argument(
            "--model",
            metavar="NAME",
            help="the model (or folder) whose chat template must take conversations; check counts tokens as it does",
        )
    for parser in (filtering, dedup):
        parser.add_argument("--out", required=True, metavar="FILE", help="where the rows that stay go (.jsonl)")
        parser.add_argument("--removed", metavar="FILE", help="where the others go, each with its reason")
    for parser in (check, filtering, dedup):
        parser.add_argument(
            "--against", metavar="FILE", help="a set (of a test, say) whose rows must not be in this one"
        )
        parser.add_argument(
            "--threshold", type=float, default=0.8, metavar="X", help="likeness of near duplicates, 0.5 to 1 (0.8)"
        )
        _add_input(parser)
    augment = add(
        "augment", run_augment, "add rows made from others", "augment rows.jsonl --out more.jsonl --methods noise,case"
    )
    _add_input(augment)
    augment.add_argument("--out", required=True, metavar="FILE", help="where old and new rows go (.jsonl)")
    augment.add_argument("--dropped", metavar="FILE", help="where new rows go that failed a check")
    augment.add_argument(
        "--methods", required=True, metavar="A,B", help="noise, case, template, paraphrase, back_translation"
    )
    augment.add_argument("--share", type=float, default=0.2, metavar="X", help="new rows as a share of the old (0.2)")
    augment.add_argument("--seed", type=int, default=0, metavar="N", help="draws the rows and the changes (0)")
    augment.add_argument("--templates", metavar="FILE", help="wordings with {text} in them, one a line")
    augment.add_argument("--model", metavar="NAME", help="the served model that rewrites (default: the one for chats)")
    augment.add_argument("--min-likeness", type=float, default=0.9, metavar="X", help="cosine of old and new (0.9)")
    augment.add_argument("--unchecked", action="store_true", help="do not check meaning and label (needs no service)")


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="FILE", help="the rows")
    parser.add_argument("--form", choices=_FORMS, help="their form (default: that of the first row)")
    parser.add_argument("--columns", default="", metavar="A=B,C=D", help="columns under other names: prompt=question")


def run_check(args: argparse.Namespace) -> int:
    """``pagoda data check``: exits with 1 when a row would be removed by ``filter``."""
    from pagoda.cli.data_view import print_report
    from pagoda.model.data.report import REMOVING, check

    count, fault = _of_model(args)
    report = check(_read(args), against=_against(args), count=count, fault=fault, threshold=args.threshold)
    if args.json:
        print_json(report.to_json())
    else:
        print_report(report, args.show)
    return 1 if set(report.reasons) & set(REMOVING) else 0


def run_filter(args: argparse.Namespace) -> int:
    """``pagoda data filter``."""
    from pagoda.model.data.filtering import Wanted, filter_rows
    from pagoda.model.data.report import REMOVING

    wanted = Wanted(
        remove=REMOVING if args.remove is None else tuple(filter(None, args.remove.split(","))),
        least=args.min_chars,
        most=args.max_chars,
        languages=tuple(filter(None, args.languages.split(","))),
        threshold=args.threshold,
    )
    done = filter_rows(_read(args), wanted, against=_against(args), fault=_of_model(args)[1])
    return _write(args, [row.content for row in done.kept], done.removed, done.reasons)


def run_dedup(args: argparse.Namespace) -> int:
    """``pagoda data dedup``."""
    from pagoda.model.data.filtering import Wanted, filter_rows

    wanted = Wanted(remove=("duplicate", "label_conflict", "near_duplicate", "leak"), threshold=args.threshold)
    done = filter_rows(_read(args), wanted, against=_against(args))
    return _write(args, [row.content for row in done.kept], done.removed, done.reasons)


def run_augment(args: argparse.Namespace) -> int:
    """``pagoda data augment``: a run, since models may have much to write; unchecked it asks nobody."""
    import asyncio

    from pagoda.model.data.augmentation import Means, Plan, augment
    from pagoda.model.data.reading import write_rows

    data = _read(args)
    plan = Plan(
        methods=tuple(filter(None, args.methods.split(","))),  # the plan checks them
        share=args.share,
        seed=args.seed,
        templates=_lines(args.templates),
        least_alike=args.min_likeness,
    )
    if not args.unchecked:
        return _augmented(args, data, plan)
    done = asyncio.run(augment(data.rows, plan, Means()))
    write_rows(Path(args.out), [*(row.content for row in data.rows), *done.added])
    if args.dropped:
        write_rows(Path(args.dropped), done.dropped)
    figures = {"rows": len(data.rows), "added": len(done.added), "dropped": len(done.dropped), "out": args.out}
    return _tell_added(figures, as_json=args.json)


def _augmented(args: argparse.Namespace, data: DataSet, plan: Plan) -> int:
    from pagoda.application.augmenting import KIND, plan_augmentation
    from pagoda.cli.runs import carry_out, tell_result

    asked = {
        "form": args.form,
        "columns": _columns(args),
        "model": args.model,
        "out": str(Path(args.out).absolute()),
        "dropped": str(Path(args.dropped).absolute()) if args.dropped else None,
    }
    run = carry_out(settings_from(args), KIND, plan_augmentation(data, asked, plan), seed=args.seed, as_json=args.json)
    if run.status != "done":
        return 1
    if args.json:
        tell_result(run)
        return 0
    return _tell_added(run.result, as_json=False)


def _tell_added(figures: Mapping[str, Any], *, as_json: bool) -> int:
    if as_json:
        print_json(figures)
    else:
        sys.stdout.write(
            f"{figures['added']} rows added to {figures['rows']}, {figures['dropped']} dropped by a check; in "
            f"{figures['out']}\n"
        )
    return 0


def _read(args: argparse.Namespace) -> DataSet:
    return _rows_of(args, args.data)


def _rows_of(args: argparse.Namespace, source: str) -> DataSet:
    from pagoda.model.data.reading import read_data

    return read_data(source, form=args.form, columns=_columns(args))


def _columns(args: argparse.Namespace) -> dict[str, str]:
    from pagoda.core.errors import InvalidRequest

    pairs = [pair.partition("=") for pair in filter(None, args.columns.split(","))]
    if any(not sign for _, sign, _ in pairs):
        raise InvalidRequest("--columns: write it as ours=theirs, for example --columns prompt=question.")
    return {ours: theirs for ours, _, theirs in pairs}


def _against(args: argparse.Namespace) -> DataSet | None:
    """The other set, in the form and with the columns of the first. What of it is not compared is said."""
    if not args.against:
        return None
    found = _rows_of(args, args.against)
    found.check()
    if found.refused:
        first = found.refused[0]
        sys.stderr.write(
            f"pagoda: {len(found.refused)} of {found.count} rows of {args.against} cannot be read, and are not looked "
            f"for (row {first.number}: {first.why}).\n"
        )
    return found


def _of_model(args: argparse.Namespace) -> tuple[Count | None, Fault | None]:
    """How the model that is named counts tokens, and what it has against rows."""
    if args.model is None:
        return None, None
    from pagoda.model.training.launching import importing_torch

    with importing_torch():
        from pagoda.model.training.inspecting import reading_as

    return reading_as(args.model, settings_from(args))


def _lines(path: str | None) -> tuple[str, ...]:
    from pagoda.core.errors import InvalidRequest

    if path is None:
        return ()
    try:
        return tuple(line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip())
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error.strerror}).") from error


def _write(
    args: argparse.Namespace,
    kept: Sequence[Mapping[str, Any]],
    removed: Sequence[Mapping[str, Any]],
    reasons: Mapping[str, int],
) -> int:
    from pagoda.model.data.reading import write_rows

    write_rows(Path(args.out), kept)
    if args.removed:
        write_rows(Path(args.removed), removed)
    if args.json:
        print_json({"kept": len(kept), "removed": len(removed), "reasons": dict(reasons), "out": args.out})
        return 0
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    sys.stdout.write(f"{len(kept)} rows stay, in {args.out}; {len(removed)} removed{': ' + told if told else ''}\n")
    return 0
