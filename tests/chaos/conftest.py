"""Runs whose children execute the kinds of ``run_child``, and a disk that is soon full."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagoda.core.runs import RunRegistry, Runs
from pagoda.core.settings import Settings
from tests.chaos.run_child import KINDS

CHILD = Path(__file__).parent / "run_child.py"


@pytest.fixture
def make_runs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Runs]:
    """``Runs`` in a home; further arguments go to the child."""
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root / "src"), str(root)]))

    def make(home: Path, *arguments: str) -> Runs:
        return Runs(Settings(home=home), RunRegistry(KINDS), command=(sys.executable, str(CHILD), *arguments))

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte; needs the right to mount."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        reason = f"a small tmpfs cannot be mounted: {done.stderr.strip()}"
        if os.environ.get("PAGODA_REQUIRE") == "all":
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
