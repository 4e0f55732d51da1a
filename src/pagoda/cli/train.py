"""``pagoda train``: models taught by data and by other models."""

from __future__ import annotations

from typing import Any

from pagoda.cli.context import command_group
from pagoda.cli.train_distill import add_distill


def register(commands: Any) -> None:
    """Add the command group."""
    add = command_group(
        commands,
        "train",
        help_="teach a model: distill",
        about="Teach a model by a recipe, a short YAML file.",
        example="distill --config distill.yaml",
    )
    add_distill(add)
