"""The configuration guide lists every setting there is, with its default and, in English, its own sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pagoda.core.configuration import Option, options

GUIDES = Path(__file__).parents[2] / "docs" / "guides"


def written(value: Any) -> str:
    """A default as one writes it in TOML."""
    match value:
        case bool() | str():
            return json.dumps(value)
        case int():
            return str(value)
        case float():
            return f"{value:g}"
        case dict():
            return "{}"
    return json.dumps(list(value))


def row(option: Option) -> str:
    sentence = option.doc
    if option.choices:
        sentence += " One of " + ", ".join(f"`{choice}`" for choice in option.choices) + "."
    return f"| `{option.key}` | `{written(option.default)}` | {sentence} |"


def test_the_english_guide_has_every_setting_in_its_own_words() -> None:
    lines = (GUIDES / "configuration.md").read_text(encoding="utf-8").splitlines()
    shown = [line for line in lines if re.match(r"\| `\w+\.\w+` \|", line)]
    assert shown == [row(option) for option in options()], "this is how the table has to read"


def test_the_chinese_guide_has_every_setting_and_default() -> None:
    text = (GUIDES / "configuration.zh.md").read_text(encoding="utf-8")
    shown = re.findall(r"(?m)^\| `(\w+\.\w+)` \| `(.*?)` \| \S", text)
    assert shown == [(option.key, written(option.default)) for option in options()]


@pytest.mark.parametrize("option", list(options()), ids=lambda option: option.key)
def test_the_environment_name_follows_the_rule_of_the_guide(option: Option) -> None:
    exceptions = {"keys.admin_key": "PAGODA_ADMIN_KEY", "client.key": "PAGODA_API_KEY"}
    assert option.env == exceptions.get(option.key, "PAGODA_" + option.key.replace(".", "_").upper())
    for guide in ("configuration.md", "configuration.zh.md"):
        assert option.key not in exceptions or f"`{option.env}`" in (GUIDES / guide).read_text(encoding="utf-8")
