"""``pagoda export``: from what a trainer left to a model that serves and answers the same, or a refusal."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from pagoda.cli.context import add_json_flag, add_settings_flag, settings_from


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "export",
        help="merge an adapter, write GGUF or safetensors, prove parity",
        description="Merge an adapter into its base, write GGUF or safetensors with chat template and stop tokens, and "
        "ask the trainer's, the merged and the served model the same: the export fails unless they agree.",
        epilog="example: pagoda export ./my-adapter --base smollm2-135m-instruct-hf --name my-model",
    )
    parser.add_argument("source", help="folder of a checkpoint or PEFT adapter, or a model of the catalog")
    parser.add_argument(
        "--base", metavar="MODEL", help="what the adapter was trained on (default: what it says itself)"
    )
    parser.add_argument("--name", help="its name in the catalog (default: the folder's name and -export)")
    parser.add_argument("--to", choices=("gguf", "safetensors"), default="gguf", help="what is written (default: gguf)")
    parser.add_argument(
        "--form",
        metavar="TYPE",
        help="F32, F16, BF16, and of GGUF Q8_0, ... (default: F16, for safetensors that of the base)",
    )
    add_json_flag(parser)
    add_settings_flag(parser)
    parser.set_defaults(run=run_export)


def run_export(args: argparse.Namespace) -> int:
    """Export; status 1 where the parity gate refuses."""
    from pagoda.application.exporting import KIND, plan_export, plan_json
    from pagoda.cli.runs import carry_out, tell_result
    from pagoda.core.runs.files import read_json
    from pagoda.model.catalog.opening import open_shelf

    settings = settings_from(args)
    plan = plan_export(open_shelf(settings), args.source, args.base, args.name, args.to, args.form)
    run = carry_out(settings, KIND, plan_json(plan), as_json=args.json)
    report = settings.runs_directory / run.id / "artifacts" / "parity.json"
    if run.status != "done":
        return 1
    if args.json:
        tell_result(run, **read_json(report))
        return 0
    result = run.result or {}
    sys.stdout.write(f"{result['model']} answers as the trainer does ({result['checks']} checks, {report}).\n")
    if result["untied"]:
        sys.stdout.write("Its embeddings were untied, because the adapter changes the head or the embedding.\n")
    sys.stdout.write(f"Serve it with: pagoda serve --model {result['model']}\n")
    return 0
