"""The same recipe in two processes under torchrun (gloo, CPU): the losses of one process with the batch of both."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pagoda.core.runs.metrics import read_metrics
from pagoda.core.settings import Settings
from pagoda.model.training.checkpoints import MARK
from pagoda.model.training.desk import FolderDesk
from pagoda.model.training.recipe import read_recipe
from pagoda.model.training.work import train as run
from tests.rows import write_jsonl
from tests.tiny_models import save_trainable

STEPS = 6
ADAPTER_FILE = Path("artifacts/adapter/adapter_model.safetensors")


def torchrun(folder: Path, out: Path, processes: int, *changes: str) -> list[float]:
    """The losses of a training with so many processes, which goes on with what is in ``out``."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--rdzv-backend", "c10d"]
    ours = ["-m", "pagoda.model.training.distributed", "--config", str(folder / "recipe.yaml"), "--out", str(out)]
    command = [sys.executable, *launcher, "--rdzv-endpoint", "127.0.0.1:0", *ours]
    for change in changes:
        command += ["--set", change]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PAGODA_HOME": str(folder / "home"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["steps"] == STEPS
    assert any((out / "artifacts").glob("*/*.safetensors"))
    return losses(out)


def losses(folder: Path) -> list[float]:
    """By step."""
    points = read_metrics(folder / "metrics.jsonl")
    return [point.values["loss"] for point in points if "loss" in point.values]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("processes")
    save_trainable(place / "model")
    write_jsonl(
        place / "rows.jsonl", ({"prompt": "say " * (1 + n % 3), "completion": "abcde"[n % 5]} for n in range(16))
    )
    (place / "recipe.yaml").write_text(
        f"model: {place / 'model'}\ndata: {{train: {place / 'rows.jsonl'}}}\nmethod: full\nmax_length: 64\n"
        f"steps: {STEPS}\nlearning_rate: 5e-3\nthreads: 1\ngroup_by_length: false\ndevice: cpu\n"
        "save_every: 3\n"
    )
    return place


@pytest.mark.timeout(600)  # six processes import torch, on two cores
def test_two_processes_train_as_one_with_the_batch_of_both(folder: Path) -> None:
    alone = FolderDesk(folder / "alone", 0, Settings(home=folder), writes=True)
    run(read_recipe(folder / "recipe.yaml", ["batch_size=4"]), alone)
    one = losses(folder / "alone")
    assert torchrun(folder, folder / "both", 2, "batch_size=2") == pytest.approx(one, rel=1e-3)
    assert torchrun(folder, folder / "sharded", 2, "batch_size=2", "shard=true") == pytest.approx(one, rel=1e-3)


@pytest.mark.timeout(600)
def test_a_sharded_adapter_is_taken_up_again_whole(folder: Path) -> None:
    """Of an adapter, a resumption may find one process's part alone."""
    alone = FolderDesk(folder / "lora", 0, Settings(home=folder), writes=True)
    run(read_recipe(folder / "recipe.yaml", ["batch_size=4", "method=lora"]), alone)
    one, sharded = losses(folder / "lora"), folder / "sharded-lora"
    changes = ("batch_size=2", "method=lora", "shard=true")
    assert torchrun(folder, sharded, 2, *changes) == pytest.approx(one, rel=1e-3)
    # As a kill leaves it: the newest checkpoint half written, nothing handed out. Whoever goes on has the same curve.
    whole = load_file(sharded / ADAPTER_FILE)
    (sharded / "checkpoints" / f"checkpoint-{STEPS}" / MARK).unlink()
    shutil.rmtree(sharded / "artifacts")
    assert torchrun(folder, sharded, 2, *changes) == pytest.approx(one, rel=1e-3), "resumed"
    assert [p.step for p in read_metrics(sharded / "metrics.jsonl") if p.attempt == 2] == list(range(4, STEPS + 1))
    again, mine = load_file(sharded / ADAPTER_FILE), load_file(folder / "lora" / ADAPTER_FILE)
    assert again.keys() == whole.keys() == mine.keys()
    for name, tensor in again.items():
        torch.testing.assert_close(tensor, whole[name])
        torch.testing.assert_close(tensor, mine[name], atol=1e-4, rtol=1e-3)
