"""Better models for this machine: a packaged list, from which what fits the memory is picked."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from pagoda.model.catalog.entry import ModelEntry
from pagoda.model.catalog.entry_file import entry_from


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A model, about how many bytes it takes to fetch, and how much memory a machine should have for it."""

    model: ModelEntry
    download: int
    memory: int


def suggest(memory_bytes: int) -> list[Suggestion]:
    """The models that fit into so much memory, the largest (and so the best) first."""
    return [item for item in reversed(suggestions()) if item.memory <= memory_bytes]


def suggestion_named(name: str) -> ModelEntry | None:
    """The suggested model of that id."""
    return next((item.model for item in suggestions() if item.model.id == name), None)


@functools.cache
def suggestions() -> tuple[Suggestion, ...]:
    """The whole list, by memory."""
    text = resources.files(__package__).joinpath("suggestions.yaml").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = yaml.safe_load(text)
    found = (Suggestion(entry_from(row["model"], "suggestions.yaml"), row["download"], row["memory"]) for row in rows)
    return tuple(sorted(found, key=lambda item: item.memory))
