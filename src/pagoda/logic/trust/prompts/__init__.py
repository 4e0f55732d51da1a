"""The words that trust puts to models: versioned prompts, one file each."""

from __future__ import annotations

from functools import cache
from importlib import resources

from pagoda.logic.prompts.file import read_prompt
from pagoda.logic.prompts.prompt import PromptVersion


@cache
def trust_prompt(name: str) -> PromptVersion:
    """A prompt of this package by the name of its file."""
    text = resources.files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return read_prompt(text, f"{name}.yaml")
