"""Killed while documents are taken in, and begun again: the same collection as without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pagoda.core.settings import Settings
from pagoda.core.storage.store import open_store
from tests.chaos.ingest_child import home, retrieval_over, take

DOCUMENTS = 30


async def held(settings: Settings) -> list[tuple[str, int, int, str, bytes]]:
    """All passages with their vectors."""
    async with open_store(settings) as store:
        _, rows = await retrieval_over(settings, store).book.passages("local", "killed")
    told = [(row.passage, row.vector) for row in rows]
    return [(each.source, each.start, each.end, each.text, vector) for each, vector in told]


@pytest.mark.parametrize("killed_at", [7, 29])
async def test_a_killed_ingestion_goes_on_to_the_same_collection(tmp_path: Path, killed_at: int) -> None:
    folder, killed, whole = tmp_path / "documents", tmp_path / "killed", tmp_path / "whole"
    for each in (folder, killed, whole):
        each.mkdir()
    for number in range(DOCUMENTS):
        (folder / f"{number:02}.md").write_text(
            f"# Part {number}\n\n" + f"Words of {number}. 第{number}句。" * 9, "utf-8"
        )
    with subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.ingest_child", str(killed), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == killed_at:
                break
        child.kill()
    report = await take(home(killed), folder, say=False)
    assert report.unchanged >= killed_at, "what was finished is not done again"
    assert report.unchanged + len(report.added) == DOCUMENTS
    assert not report.failed
    await take(home(whole), folder, say=False)
    assert await held(home(killed)) == await held(home(whole))
