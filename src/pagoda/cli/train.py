"""``pagoda train``: fine-tuning by a recipe, what it will learn told beforehand, and the search for a better recipe."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pagoda.cli.context import command_group, print_json, settings_and_keys
from pagoda.cli.train_distill import add_distill

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pagoda.core.runs import Run, Runs
    from pagoda.core.settings import Settings
    from pagoda.model.training.recipe import Recipe


def register(commands: Any) -> None:
    """Add the command group."""
    add = command_group(
        commands,
        "train",
        help_="fine-tune a model: sft, tune, inspect, distill",
        about="Fine-tune a model by a recipe, a short YAML file. --set changes any key of it, or any setting.",
        sets="a key of the recipe, such as learning_rate=1e-4, or any setting",
        example="sft --config recipes/tickets-lora.yaml --set learning_rate=1e-4",
    )
    sft = add("sft", run_sft, "train on supervised rows", "sft --config recipes/tickets-lora.yaml --set lora.rank=8")
    _add_recipe(sft)
    tune = add("tune", run_tune, "search for the best recipe", "tune --config recipes/tickets-tune.yaml --trials 8")
    _add_recipe(tune)
    tune.add_argument("--trials", type=int, metavar="N", help="trainings at most (default: the recipe's, else 16)")
    inspect = add(
        "inspect",
        run_inspect,
        "show what a recipe would learn, token by token, and train nothing",
        "inspect --config recipes/tickets-lora.yaml",
    )
    inspect.add_argument("--config", required=True, metavar="FILE", help="the recipe")
    add_distill(add)


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE", help="the recipe")
    parser.add_argument("--name", default="", help="a name for the run")
    parser.add_argument("--detach", action="store_true", help="start it and do not watch")


def run_sft(args: argparse.Namespace) -> int:
    """``pagoda train sft``."""
    settings, recipe = _asked(args)
    return _started(args, settings, "sft", recipe, _tell_outcome)


def run_tune(args: argparse.Namespace) -> int:
    """``pagoda train tune``."""
    settings, recipe = _asked(args, *([f"search.trials={args.trials}"] if args.trials is not None else []))
    from pagoda.model.training.search import check_space

    check_space(recipe)
    return _started(args, settings, "tune", recipe, _tell_search)


def run_inspect(args: argparse.Namespace) -> int:
    """``pagoda train inspect``."""
    from pagoda.cli.train_view import print_supervision
    from pagoda.model.training.launching import importing_torch

    with importing_torch():
        from pagoda.model.training.inspecting import inspect

    settings, recipe = _asked(args)
    prepared = inspect(recipe, settings)
    if args.json:
        print_json({**prepared.report.to_json(), "shown": prepared.shown})
    else:
        print_supervision(prepared.report, prepared.refused, prepared.shown)
    return 0


def _asked(args: argparse.Namespace, *changes: str) -> tuple[Settings, Recipe]:
    """The settings and the recipe."""
    from pathlib import Path

    from pagoda.model.training.recipe import read_recipe

    settings, ours = settings_and_keys(args)
    return settings, read_recipe(Path(args.config), [*ours, *changes])


def _started(args: argparse.Namespace, settings: Settings, kind: str, recipe: Recipe, tell: Any) -> int:
    from pagoda.application.registry import run_kinds
    from pagoda.cli.runs import follow
    from pagoda.core.runs import RunRegistry, Runs

    runs = Runs(settings, RunRegistry(run_kinds()))
    run = runs.create(kind, recipe.model_dump(mode="json"), seed=recipe.seed, name=args.name)
    runs.start(run.id)
    if args.detach:
        if args.json:
            print_json(runs.get(run.id).to_json())
        else:
            sys.stdout.write(f"The run {run.id} has begun; watch it with `pagoda runs watch {run.id}`.\n")
        return 0
    status = follow(runs, run.id, as_json=args.json)
    return _concluded(runs, run, status, tell, as_json=args.json)


def _concluded(runs: Runs, run: Run, status: int, tell: Any, *, as_json: bool) -> int:
    run = runs.get(run.id)
    if run.status == "done" and not as_json:
        tell(run, run.result)
    return status


def _tell_outcome(run: Run, result: Mapping[str, Any]) -> None:
    for name, after in result["after"].items():
        sys.stdout.write(
            f"{name.removeprefix('eval_'):<16} {result['before'].get(name, float('nan')):.4f} -> {after:.4f}\n"
        )
    before = f" after the {result['resumed_at']} of earlier attempts" if result["resumed_at"] else ""
    steps = f"{result['steps'] - result['resumed_at']} steps{before}"
    sys.stdout.write(f"trained in {result['seconds']:.0f} s, {steps}; saved in {result['saved']}\n")
    learnt = result["supervision"]
    if learnt["trained"]:
        sys.stdout.write(
            f"{learnt['trained']} of {learnt['validation']} validation rows are trained on too, so that these figures "
            "say too much; `pagoda data dedup` removes them.\n"
        )
    sys.stdout.write(f"report, refused rows and plot: {run.directory / 'artifacts'}\n")
    if run.config.get("task") == "generation":
        sys.stdout.write(f"Serve it with: pagoda export {result['saved']} --name NAME\n")


def _tell_search(run: Run, result: Mapping[str, Any]) -> None:
    sys.stdout.write(
        f"best {result['objective']}: {result['best']:.6g}, trial {result['trial']} of {result['trials']}\n"
    )
    for key, value in result["chosen"].items():
        sys.stdout.write(f"  {key} = {value}\n")
    sys.stdout.write(f"its recipe and the plots: {run.directory / 'artifacts'}\n")
