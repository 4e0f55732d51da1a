"""The same recipe on many devices: the module that torchrun starts in each of its processes.

::

    torchrun --nproc-per-node 4 -m pagoda.model.training.distributed --config recipe.yaml --out folder --set shard=true
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import torch

from pagoda.core.configuration import load_settings
from pagoda.core.errors import PagodaError
from pagoda.model.training.desk import FolderDesk, Group
from pagoda.model.training.recipe import read_recipe
from pagoda.model.training.work import train


def main() -> int:
    """Train; the first process prints the outcome as one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m pagoda.model.training.distributed", description=__doc__)
    parser.add_argument("--config", required=True, type=Path, help="the recipe")
    parser.add_argument("--out", required=True, type=Path, help="a folder, laid out like a run's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any key of the recipe")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    group = Group(int(os.environ.get("WORLD_SIZE", "1")), os.environ.get("RANK", "0") == "0")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))  # before a model is put on "the" device
    try:
        recipe = read_recipe(args.config, args.set)
        settings = load_settings({}, os.environ, Path.cwd())
        seed = args.seed if recipe.seed is None else recipe.seed
        outcome = train(recipe, FolderDesk(args.out, seed, settings, writes=group.first), group=group)
    except PagodaError as error:
        sys.stderr.write(f"pagoda: {error.message}\n")
        return 1
    if group.first:
        sys.stdout.write(json.dumps(outcome) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
