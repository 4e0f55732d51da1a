"""Tiny checkpoints that all tests of training share, and one thread: two would wait for each other when it is busy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pagoda.core.settings import Settings
from pagoda.model.training.desk import FolderDesk
from pagoda.model.training.recipe import recipe_from
from pagoda.model.training.work import train
from tests.rows import write_jsonl
from tests.tiny_models import one_torch_thread, save_trainable

Trained = tuple[dict[str, Any], Path]
Train = Callable[..., Trained]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    with one_torch_thread():
        yield


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_trainable(tmp_path_factory.mktemp("llama") / "model")


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_trainable(tmp_path_factory.mktemp("gpt2") / "model", family="gpt2", template=None)


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of different lengths whose answer their prompt tells."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    return write_jsonl(
        path, ({"prompt": "say " * (1 + n % 3) + str(n % 5), "completion": "abcde"[n % 5]} for n in range(40))
    )


@pytest.fixture
def fit(tmp_path: Path, llama: Path, rows: Path) -> Train:
    """Trains by a small recipe with changes; gives the outcome and the folder."""

    def run(place: str = "out", **changes: Any) -> Trained:
        data = {"train": str(rows), **changes.pop("data", {})}
        known = {
            "model": str(llama),
            "max_length": 64,
            "batch_size": 4,
            "method": "full",
            "learning_rate": 5e-3,
            "steps": 6,
        }
        folder = tmp_path / place
        seed = changes.pop("draw", 1)
        recipe = recipe_from({**known, "threads": 1, **changes, "data": data})
        desk = FolderDesk(folder, seed, Settings(home=tmp_path), writes=True)
        (folder / "recipe.json").write_text(recipe.model_dump_json())
        return train(recipe, desk), folder

    return run
