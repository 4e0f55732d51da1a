"""A killed training goes on with the curve of one that was not; a full disk leaves the last checkpoint whole."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from pagoda.application.registry import run_kinds
from pagoda.core.errors import StoreError
from pagoda.core.runs import RunRegistry, Runs
from pagoda.core.runs.metrics import read_metrics
from pagoda.core.settings import Settings
from pagoda.model.training.checkpoints import Checkpoints
from pagoda.model.training.desk import FolderDesk
from pagoda.model.training.recipe import Recipe, recipe_from
from pagoda.model.training.work import train
from tests.rows import write_jsonl
from tests.tiny_models import save_trainable


def recipe(folder: Path, **changes: object) -> Recipe:
    """LoRA with dropout, so that the state of the random numbers matters too."""
    model = save_trainable(folder / "model")
    rows = ({"prompt": "say " * (1 + n % 3), "completion": "abcde"[n % 5]} for n in range(40))
    data = {"train": str(write_jsonl(folder / "rows.jsonl", rows)), "validation_share": 0.2}
    known = {"model": str(model), "data": data, "max_length": 64, "batch_size": 4, "threads": 1, "learning_rate": 1e-2}
    return recipe_from({**known, "lora": {"rank": 4, "dropout": 0.2}, **changes})


def curve(folder: Path) -> list[tuple[int, str, float]]:
    points = read_metrics(folder / "metrics.jsonl")
    return [(p.step, name, p.values[name]) for p in points for name in ("loss", "eval_loss") if name in p.values]


def test_a_killed_training_goes_on_with_the_same_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    asked = recipe(tmp_path, steps=160, evaluate_every=10)
    before = torch.get_num_threads()
    calm = train(asked, FolderDesk(tmp_path / "calm", 5, Settings(home=tmp_path), writes=True))
    torch.set_num_threads(before)
    runs = Runs(Settings(home=tmp_path / "home"), RunRegistry(run_kinds()))
    run = runs.create("sft", asked.model_dump(mode="json"), seed=5)
    runs.start(run.id)
    for event in runs.watch(run.id):
        assert event.type != "end", "it ended before it could be killed"
        if event.type == "metric" and event.data["step"] >= 25:
            break
    process = runs.get(run.id).process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    assert next(event for event in runs.watch(run.id) if event.type == "end").data["status"] == "interrupted"
    whole = Checkpoints(run.directory / "checkpoints", 1).newest()
    assert whole is not None
    runs.resume(run.id)
    assert next(event for event in runs.watch(run.id) if event.type == "end").data["status"] == "done"
    after = runs.get(run.id)
    assert after.attempt == 2
    assert curve(run.directory) == curve(tmp_path / "calm")
    assert after.result is not None
    assert after.result["after"] == calm["after"]
    resumed = [event.data for event in runs.watch(run.id) if event.type == "resumed"]
    assert resumed == [{"checkpoint": whole.name}]


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path: Path, small_disk: Path) -> None:
    asked = recipe(tmp_path, method="full", steps=8, save_every=2, evaluate_every=2, keep_checkpoints=8)
    with pytest.raises(
        StoreError, match=r"could not be written .*; the checkpoint of step \d is kept. Free some space"
    ):
        train(asked, FolderDesk(small_disk, 5, Settings(home=tmp_path), writes=True))
    kept = Checkpoints(small_disk / "checkpoints", 8)
    newest = kept.newest()
    assert newest is not None
    for path in sorted((small_disk / "checkpoints").glob("checkpoint-*")):
        if path != newest:  # make room
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    outcome = train(
        asked.model_copy(update={"keep_checkpoints": 1}),
        FolderDesk(small_disk, 5, Settings(home=tmp_path), writes=True),
    )
    assert outcome["steps"] == 8
