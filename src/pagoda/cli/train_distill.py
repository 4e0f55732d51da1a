"""``pagoda train distill``: a smaller model taught by a larger one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pagoda.cli.context import settings_and_keys

if TYPE_CHECKING:
    from pagoda.cli.context import AddCommand


def add_distill(add: AddCommand) -> None:
    """Add the command to those of ``pagoda train``."""
    parser = add("distill", run_distill, "teach a student what a teacher would say", "distill --config distill.yaml")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the recipe, a YAML file")


def run_distill(args: argparse.Namespace) -> int:
    """Distil; the student is a checkpoint in the run's folder."""
    from pagoda.application.distilling import KIND, plan_distillation
    from pagoda.cli.runs import carry_out, tell_result
    from pagoda.model.catalog.opening import open_shelf
    from pagoda.model.training.distillation import read_recipe

    settings, ours = settings_and_keys(args)
    recipe = read_recipe(args.config, ours)
    config = plan_distillation(open_shelf(settings), recipe)
    run = carry_out(settings, KIND, config, seed=recipe.seed, as_json=args.json)
    result = run.result or {}
    if run.status != "done":
        return 1
    if args.json:
        tell_result(run)
    else:
        sys.stdout.write(
            f"The student is in {result['saved']} ({result['supervision']['rows']} rows, loss {result['loss']:.4f}).\n"
        )
        sys.stdout.write(f"Serve it with: pagoda export {result['saved']} --name NAME\n")
    return 0
