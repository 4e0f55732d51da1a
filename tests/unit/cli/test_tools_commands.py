"""``pagoda tools call``: what it gives, refuses, and has written down."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import pytest

from pagoda.application.agenting import home_audit
from pagoda.cli import tools
from pagoda.core.errors import InvalidRequest
from pagoda.core.settings import Settings


def call(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="pagoda")
    tools.register(parser.add_subparsers())
    args = parser.parse_args(["tools", "call", *arguments])
    result: int = args.run(args)
    return result


def test_a_call_is_made_and_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PAGODA_HOME", str(tmp_path))
    assert call("calculator", "expression=37*41-2015") == 0
    assert capsys.readouterr().out == "-498\n"
    assert call("calculator", "expression=9**9**9") == 1
    with pytest.raises(InvalidRequest, match="needs approval"):
        call("python", "code=1")

    async def lines() -> list[tuple[str, str, str, str]]:
        async with home_audit(Settings(home=tmp_path)) as book:
            rows = await book.audit(limit=9)
        return [(row.who, row.action, row.subject.split()[0], row.outcome) for row in reversed(rows)]

    told = [("local", "pagoda tools call", "calculator", outcome) for outcome in ("begun", "done", "begun", "failed")]
    assert asyncio.run(lines()) == told
