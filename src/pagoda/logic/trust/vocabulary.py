"""The lists of words that trust knows by themselves, read from a file beside this one once."""

from __future__ import annotations

from functools import cache
from importlib import resources

import yaml


@cache
def vocabulary(name: str) -> tuple[str, ...]:
    """The words of a list, in its order."""
    return _lists()[name]


@cache
def _lists() -> dict[str, tuple[str, ...]]:
    text = resources.files("pagoda.logic.trust").joinpath("vocabulary.yaml").read_text(encoding="utf-8")
    return {name: tuple(words.split()) for name, words in yaml.safe_load(text).items()}
