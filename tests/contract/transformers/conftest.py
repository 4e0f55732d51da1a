"""The checkpoint of SmolLM2 behind the transformers engine, and tiny models and adapters of our own making."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pagoda.core.configuration import load_settings
from pagoda.core.settings import Engines
from pagoda.core.types import Delta, Generation
from pagoda.model.catalog.entry import LocalPath, ModelEntry, Task
from pagoda.model.catalog.opening import Shelf, open_shelf
from pagoda.model.engines.transformers import TransformersEngine
from pagoda.service.host import StartGround
from pagoda.service.supervisor import Supervisor

CHECKPOINT = "smollm2-135m-instruct-hf"


@pytest.fixture(scope="session")
def shelf(models_directory: Path) -> Shelf:
    environment = {"PAGODA_HOME": str(models_directory.parent)}
    return open_shelf(load_settings({"models.directory": str(models_directory)}, environment, models_directory))


@pytest.fixture(scope="session")
def checkpoint(shelf: Shelf) -> Path:
    path = shelf.store.locate(shelf.catalog.resolve(CHECKPOINT))
    assert path is not None
    return path


@pytest.fixture(scope="session")
def reference(checkpoint: Path) -> tuple[Any, Any]:
    """Plain transformers: the model and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(2)
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32), AutoTokenizer.from_pretrained(
        checkpoint
    )


@pytest.fixture(scope="session")
def supervise(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Supervisor]:
    logs = tmp_path_factory.mktemp("logs")

    def make() -> Supervisor:
        ground = StartGround(
            locate=shelf.store.locate, logs=logs, environment={}, start_seconds=90, find=shelf.catalog.find
        )
        return Supervisor(ground, Engines(threads=2, parallel=4, context=512))

    return make


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def supervisor(supervise: Callable[[], Supervisor]) -> AsyncIterator[Supervisor]:
    running = supervise()
    yield running
    await running.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(supervisor: Supervisor, shelf: Shelf) -> TransformersEngine:
    found = await supervisor.load(shelf.catalog.resolve(CHECKPOINT))
    assert isinstance(found, TransformersEngine)
    return found


async def answer(engine: TransformersEngine, request: Generation) -> str:
    """The text of the first choice."""
    return "".join([event.text async for event in engine.generate(request) if isinstance(event, Delta)])


def plain(reference: tuple[Any, Any], prompt: str, tokens: int) -> str:
    """What ``model.generate`` answers greedily."""
    model, tokenizer = reference
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    out = model.generate(ids, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def local(path: Path, name: str = "tiny", task: Task = "chat", **fields: Any) -> ModelEntry:
    return ModelEntry(id=name, task=task, engine="transformers", source=LocalPath(path=str(path)), **fields)


@pytest.fixture
def tiny(tmp_path: Path, checkpoint: Path) -> Path:
    """A random checkpoint of 6 MB with SmolLM2's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path / "tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(checkpoint / name, folder / name)
    return folder
