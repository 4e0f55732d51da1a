"""The prompts that come with Pagoda: one file each, read when it is first used, seen by every team.

A team's own prompt of the same name takes the place of one of these for that team.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import resources

from pagoda.core.errors import InvalidRequest
from pagoda.logic.prompts.file import read_prompt
from pagoda.logic.prompts.prompt import PromptVersion


@cache
def library_names() -> tuple[str, ...]:
    """The names of all packaged prompts."""
    files = resources.files(__package__).iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


@cache
def from_library(name: str) -> PromptVersion | None:
    """A packaged prompt, if there is one of that name."""
    return packaged(name) if name in library_names() else None


def packaged(name: str) -> PromptVersion:
    """The packaged prompt of a name that is known to be there."""
    text = resources.files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    read = read_prompt(text, f"{name}.yaml")
    if read.prompt.name != name:
        raise InvalidRequest(f"The packaged prompt {name}.yaml calls itself {read.prompt.name}.")
    return replace(read, tenant="")
