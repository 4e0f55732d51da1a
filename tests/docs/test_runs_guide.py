"""The guide to runs: its code works, its commands exist, and both languages show the same."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from pagoda.cli.main import build_parser
from pagoda.core.runs import RunRegistry, Runs, execute
from pagoda.core.settings import Settings

GUIDES = Path(__file__).parents[2] / "docs" / "guides"


def blocks(name: str) -> list[tuple[str, str]]:
    return re.findall(r"```(\w*)\n(.*?)```", (GUIDES / name).read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("guide", ["runs.md", "runs.zh.md"])
def test_the_code_of_the_guide_is_a_working_kind(guide: str, tmp_path: Path) -> None:
    (code,) = [text for language, text in blocks(guide) if language == "python"]
    names: dict[str, Any] = {}
    exec(compile(code, guide, "exec"), names)
    settings, registry = Settings(home=tmp_path), RunRegistry({"count": names["count"]})
    run = Runs(settings, registry).create("count", {"steps": 3}, seed=10)
    assert execute(run.id, registry, settings).result == {"sum": 13}


@pytest.mark.parametrize("guide", ["runs.md", "runs.zh.md"])
def test_the_commands_of_the_guide_exist(guide: str) -> None:
    (text,) = [text for language, text in blocks(guide) if language == ""]
    commands = [shlex.split(line, comments=True) for line in text.splitlines()]
    assert len(commands) == 6
    for command in commands:
        assert build_parser().parse_args(command[1:]).run


def test_both_languages_show_the_same_commands() -> None:
    texts = [
        [line.partition("#")[0].strip() for line in dict(blocks(name))[""].splitlines()]
        for name in ("runs.md", "runs.zh.md")
    ]
    assert texts[0] == texts[1]
