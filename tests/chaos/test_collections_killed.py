"""Killed while documents are embedded again, the index is made, or documents and collections are deleted.

The same work given again leaves what it leaves without a kill, whichever step was the last one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pagoda.core.storage.store import open_store
from tests.chaos.collection_child import DELETED, NAME, act, told
from tests.chaos.ingest_child import home, retrieval_over, take

DOCUMENTS = 12
POINTS = 8


def write(folder: Path, name: str, number: int) -> None:
    text = f"# Part {number}\n\n" + f"Words of part {number}. 第{number}句。" * 6
    (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    for number in range(DOCUMENTS):
        write(folder, f"{number:02}.md", number)
    return folder


async def kept(place: Path) -> list[Any]:
    """All that a home keeps of collections and finds in them, but ids and times."""
    settings = home(place)
    async with open_store(settings) as store:
        retrieval = retrieval_over(settings, store)
        if not await retrieval.book.collections("local"):
            return []
        collection, rows = await retrieval.book.passages("local", NAME)
        documents = await retrieval.book.documents(collection)
        return [
            [(row.source, row.digest, row.size, row.title, row.chunks, row.tags) for row in documents],
            [(row.passage.source, row.passage.start, row.passage.end, row.passage.text, row.vector) for row in rows],
            await told(retrieval),
        ]


def perish(action: str, folder: Path, *places: str) -> list[str]:
    command = [sys.executable, "-m", "tests.chaos.collection_child", action, str(folder), *places]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def spread(steps: int) -> list[int]:
    """Steps from the first to the last one."""
    return sorted({1 + round(point * (steps - 1) / (POINTS - 1)) for point in range(POINTS)})


async def killed_everywhere(action: str, folder: Path, begun: Path, tmp_path: Path) -> tuple[list[Any], list[Any]]:
    """What is kept after the work, and right after each kill; after each the work, given again, must leave the same."""
    whole = tmp_path / "whole"
    shutil.copytree(begun, whole)
    [ended] = perish(action, folder, f"{whole}:0")
    points = spread(int(ended.removeprefix("done ")))
    assert len(points) >= 4, "too few steps to be killed at"
    places = [tmp_path / str(point) for point in points]
    for place in places:
        shutil.copytree(begun, place)
    endings = perish(action, folder, *(f"{place}:{point}" for place, point in zip(places, points, strict=True)))
    assert endings == ["killed"] * len(points)
    expected = await kept(whole)
    after = [await kept(place) for place in places]
    for place, point in zip(places, points, strict=True):
        await act(action, folder, place)
        assert await kept(place) == expected, f"killed at step {point}"
    return expected, after


async def begin(folder: Path, place: Path) -> Path:
    """A home whose collection holds the folder."""
    place.mkdir()
    await take(home(place), folder, say=False)
    return place


async def test_documents_that_are_embedded_again(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "documents"
    shutil.copytree(folder, mine)
    begun = await begin(mine, tmp_path / "begun")
    before = await kept(begun)
    for number in range(4):
        write(mine, f"{number:02}.md", 100 + number)
    (mine / "04.md").rename(mine / "renamed.md")
    (mine / "05.md").rename(mine / "05.aside")
    (mine / "06.md").rename(mine / "05.md")  # in the place of one that has gone
    (mine / "07.md").write_bytes(b"")
    (mine / "08.md").unlink()
    write(mine, "new.md", 200)
    expected, after = await killed_everywhere("taken", mine, begun, tmp_path)
    names = [Path(row[0]).name for row in expected[0]]
    assert names == ["00.md", "01.md", "02.md", "03.md", "05.md", "09.md", "10.md", "11.md", "new.md", "renamed.md"]
    assert expected != before
    assert any(each not in (before, expected) for each in after), "some were killed midway"
    for each in after:
        whole = {source: count for source, _, _, _, count, _ in each[0]}
        held = [source for source, *_ in each[1]]
        assert {source: held.count(source) for source in whole} == whole, "no document stands there by half"


async def test_an_index_that_is_made(folder: Path, tmp_path: Path) -> None:
    begun = await begin(folder, tmp_path / "begun")
    before = await kept(begun)
    expected, after = await killed_everywhere("searched", folder, begun, tmp_path)
    assert expected == before
    assert expected[2]
    assert all(each == before for each in after), "it is made of the records again"


async def test_documents_that_are_deleted(folder: Path, tmp_path: Path) -> None:
    begun = await begin(folder, tmp_path / "begun")
    before = await kept(begun)
    expected, after = await killed_everywhere("deleted", folder, begun, tmp_path)
    assert len(expected[0]) == DOCUMENTS - len(DELETED)
    assert all(each in (before, expected) for each in after), "all of them leave, or none"


async def test_a_collection_that_is_deleted(folder: Path, tmp_path: Path) -> None:
    begun = await begin(folder, tmp_path / "begun")
    before = await kept(begun)
    expected, after = await killed_everywhere("gone", folder, begun, tmp_path)
    assert expected == []
    assert all(each in (before, expected) for each in after), "all of it, or nothing"
