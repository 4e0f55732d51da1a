"""Recipes that build a model in one format from files in another, most by numpy and the ``gguf`` package alone.

A recipe is a function ``build(origin, target, progress)``: it reads the folder ``origin`` and writes the file
(without a suffix: the folder) ``target``. Its version is part of the name of what it builds; raise it whenever the
output changes, and files built before are built again.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pagoda.core.errors import InvalidRequest
from pagoda.core.ports import Progress

Build: TypeAlias = Callable[[Path, Path, Progress], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe's version, the ending of what it builds, and where its function is found (``module:function``)."""

    version: int
    suffix: str
    target: str
    growth: float = 1.0
    """Bytes of what it builds for each byte of what it reads, at most; asked of the disk first."""

    def load(self) -> Build:
        """Import the function; numpy and ``gguf`` come with it."""
        module, _, name = self.target.partition(":")
        build: Build = getattr(importlib.import_module(module), name)
        return build


RECIPES = {
    "minilm-gguf": Recipe(1, ".gguf", "pagoda.model.catalog.recipes.minilm:build"),
    "e5-gguf": Recipe(2, ".gguf", "pagoda.model.catalog.recipes.e5:build"),
    "gguf-checkpoint": Recipe(1, "", "pagoda.model.catalog.recipes.dequantised:build", growth=6.0),
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name."""
    if name not in RECIPES:
        raise InvalidRequest(f"There is no recipe {name!r}; there are {', '.join(sorted(RECIPES))}.")
    return RECIPES[name]
