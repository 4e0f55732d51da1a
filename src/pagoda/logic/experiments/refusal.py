"""Whether an answer refuses, by how it begins. A rule of thumb: it knows the usual words in English and Chinese."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

import yaml


def refuses(opening: str) -> bool:
    """Whether an answer that begins so refuses to answer."""
    return _pattern().search(opening.strip()) is not None


@cache
def _pattern() -> re.Pattern[str]:
    text = resources.files(__package__).joinpath("refusals.yaml").read_text(encoding="utf-8")
    patterns = [pattern for language in yaml.safe_load(text).values() for pattern in language]
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE | re.DOTALL)
