"""A disk that fills while a model's file is built for a request: a sentence, no half file, and the next try works."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagoda.core.errors import StoreError
from pagoda.core.settings import Settings
from pagoda.model.catalog.disk import bytes_under, stored
from pagoda.model.catalog.recipes import find_recipe
from tests.services import running

MODEL, ORIGIN = "all-minilm-l6-v2", "all-minilm-l6-v2-checkpoint"

pytestmark = pytest.mark.real_model


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system in memory, whose size ``resize`` chooses; needs the right to mount."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(place)], capture_output=True, text=True, check=False
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


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def files(models: Path) -> set[str]:
    return {path.relative_to(models).as_posix() for path in (models / "files").rglob("*") if path.is_file()}


@pytest.mark.parametrize("seen", [True, False], ids=["seen before", "fills meanwhile"])
async def test_a_disk_that_is_full_while_a_model_is_built_leaves_nothing_behind(
    settings: Settings, models_directory: Path, disk: Path, seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = disk / "models"
    shutil.copytree(models_directory / "files" / ORIGIN, models / "files" / ORIGIN)
    before = files(models)
    resize(disk, bytes_under(disk) + 8 * 2**20)
    if not seen:  # as if others took the room after it was looked at
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr("pagoda.model.catalog.disk.shutil.disk_usage", lambda _: usage(2**40, 0, 2**40))
    chosen = dataclasses.replace(settings, models=dataclasses.replace(settings.models, directory=str(models)))
    async with running(chosen, []) as service:
        body = {"model": MODEL, "input": "tea"}
        for _ in range(2):  # the second finds the same full disk, not the first one's leavings
            status, answer = await service.post("/v1/embeddings", body)
            assert (status, answer["error"]["code"]) == (503, "no_space"), answer
            assert "free some space or set models.directory" in answer["error"]["message"]
            assert ("has" in answer["error"]["message"]) == seen, "before: with figures; meanwhile: there are none"
            assert files(models) == before
        supervisor = service.platform._supervisor
        assert supervisor is not None
        assert supervisor.held.host == 0
        resize(disk, 2**30)
        status, answer = await service.post("/v1/embeddings", body)
        assert (status, len(answer["data"][0]["embedding"])) == (200, 384)


def test_a_disk_that_fills_while_a_checkpoint_is_written_is_named(
    models_directory: Path, disk: Path, tmp_path: Path
) -> None:
    """safetensors has errors of its own, which no handler of files knows."""
    resize(disk, 2**20)
    origin = models_directory / "files" / "smollm2-135m-instruct"
    with pytest.raises(StoreError, match="does not fit on the disk") as caught, stored("The model", tmp_path):
        find_recipe("gguf-checkpoint").load()(origin, disk / "checkpoint", lambda *_: None)
    assert caught.value.code == "no_space"
