"""``pagoda quantize``: smaller forms of a model, and one report on what each costs and gives."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from pagoda.cli.context import add_json_flag, add_settings_flag, settings_from

_FORMS = "F16,Q8_0,Q5_1,Q4_K_M,Q4_0,int8-dynamic,bf16"


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "quantize",
        help="make smaller forms of a model and measure each",
        description="Make smaller forms of a checkpoint (GGUF: F32 F16 BF16 Q8_0 Q6_K Q5_K_M Q5_K_S Q5_1 Q5_0 Q4_K_M "
        "Q4_K_S Q4_1 Q4_0 Q3_K_L Q3_K_M Q3_K_S Q2_K; torch: fp16 bf16 int8-dynamic int8 int4), load each "
        "again, and report bytes, share quantised, perplexity, divergence from the original, a task, speed and memory.",
        epilog="example: pagoda quantize smollm2-135m-instruct-hf --data texts.jsonl --forms Q8_0,Q4_K_M,int8-dynamic",
    )
    parser.add_argument("model", help="folder of a checkpoint, or a model of the catalog that is one")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FILE", help="JSON Lines of text, or of context and continuation"
    )
    parser.add_argument("--forms", default=_FORMS, metavar="A,B", help=f"which forms (default: {_FORMS})")
    parser.add_argument("--rows", type=int, default=40, metavar="N", help="texts to measure on, at most (default: 40)")
    add_json_flag(parser)
    add_settings_flag(parser)
    parser.set_defaults(run=run_quantize)


def run_quantize(args: argparse.Namespace) -> int:
    """Quantise and report; status 1 where a form is no result."""
    from pagoda.application.quantizing import KIND, PLOT, REPORT, plan_json, plan_quantisation
    from pagoda.cli.runs import carry_out, tell_result
    from pagoda.core.errors import InvalidRequest
    from pagoda.core.runs.files import read_json
    from pagoda.model.catalog.opening import open_shelf

    if args.rows < 1:
        raise InvalidRequest("--rows must be a whole number above 0.")
    settings = settings_from(args)
    forms = [form.strip() for form in args.forms.split(",") if form.strip()]
    plan = plan_quantisation(open_shelf(settings), args.model, forms, args.data, args.rows)
    run = carry_out(settings, KIND, plan_json(plan), as_json=args.json)
    if run.status != "done":
        return 1
    folder = settings.runs_directory / run.id / "artifacts"
    report = read_json(folder / REPORT)
    if args.json:
        tell_result(run, **report)
    else:
        _show(report)
        picture = folder / PLOT
        sys.stdout.write(f"{folder / REPORT}" + (f", {picture}" if picture.exists() else "") + "\n")
        sys.stdout.write(f"Serve a GGUF form with: pagoda export {args.model} --form FORM\n")
    return 1 if any(row["problem"] for row in report["rows"]) else 0


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from pagoda.model.catalog.disk import spell_bytes
    from pagoda.model.quantize.report import ORIGINAL

    table = Table(box=None, pad_edge=False, header_style="bold")
    heads = ("form", "bytes", "quantised", "perplexity", "KL", "KL p99", "same", "task", "read/s", "write/s", "memory")
    for name in (*heads, "engine"):
        table.add_column(name, no_wrap=True, justify="left" if name in ("form", "engine") else "right")
    for row in report["rows"]:
        quality = row["quality"]
        name = f"{row['form']} ({report['precision']})" if row["form"] == ORIGINAL else row["form"]
        if quality is None:
            table.add_row(name, *["-"] * (len(heads) - 1), row["engine"])
            continue
        table.add_row(
            name,
            spell_bytes(row["bytes"]),
            f"{100 * row['share']:.1f} %",
            f"{quality['perplexity']:.3f}",
            f"{quality['divergence']:.5f}",
            f"{quality['worst']:.4f}",
            f"{100 * quality['agreement']:.1f} %",
            f"{100 * quality['accuracy']:.1f} %",
            f"{quality['reading']:.0f}",
            f"{quality['writing']:.1f}",
            spell_bytes(row["memory"]) if row["memory"] else "",
            row["engine"],
        )
    Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False).print(table)
    for line in report["said"]:
        sys.stdout.write(f"{line}\n")
