"""The words that techniques add to a prompt, in each language; a new version is a new file, so that kept prompts stay.

Not here: what a prompt itself says.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from pagoda.core.errors import InvalidRequest

NEWEST = 1


@dataclass(frozen=True, slots=True)
class Wording:
    """The words of one language."""

    separator: str
    mark: str
    """Stands before the answer, where a prompt asks for reasoning."""
    four: str
    """Asks for the four steps."""
    schema: str
    """Asks for JSON of a schema, ``{{_schema}}``."""
    example: str
    """An example within a text: ``{{_question}}`` and ``{{_answer}}``."""


@cache
def wordings(version: int) -> dict[str, Wording]:
    """The words by language. Raises ``InvalidRequest`` for a version that does not exist."""
    if not 1 <= version <= NEWEST:
        raise InvalidRequest(f"There is no wording {version}; the newest one is {NEWEST}.", param="wording")
    text = resources.files(__package__).joinpath(f"{version}.yaml").read_text(encoding="utf-8")
    return {language: Wording(**words) for language, words in yaml.safe_load(text).items()}


def wording(version: int, language: str) -> Wording:
    """The words of a language, or the English ones for a language that has none of its own."""
    every = wordings(version)
    return every.get(language) or every.get(language.partition("-")[0]) or every["en"]
