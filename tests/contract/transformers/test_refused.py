"""Folders that cannot be served, each refused with its reason; and nothing of a pickle or of foreign code is run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pagoda.core.errors import PagodaError, Unavailable
from pagoda.core.types import Generation, Sampling
from pagoda.model.engines.contract import Room
from pagoda.model.engines.transformers import Transformers
from pagoda.service.supervisor import Supervisor
from tests.contract.transformers.conftest import answer, local

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(180)]


async def refusal(supervise: Callable[[], Supervisor], path: Path, **fields: object) -> PagodaError:
    supervisor = supervise()
    try:
        with pytest.raises(PagodaError) as caught:
            await supervisor.load(local(path, **fields))  # type: ignore[arg-type]
        return caught.value
    finally:
        await supervisor.close()


async def test_a_whole_checkpoint_is_served(supervise: Callable[[], Supervisor], tiny: Path) -> None:
    supervisor = supervise()
    try:
        engine = await supervisor.load(local(tiny))
        assert engine.context == 256, "no more than the model holds"
        request = Generation(model="tiny", prompt="Hello", max_tokens=3, sampling=Sampling(temperature=0))
        assert await answer(engine, request)  # type: ignore[arg-type]
    finally:
        await supervisor.close()


async def test_a_folder_that_is_no_model_is_refused(supervise: Callable[[], Supervisor], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    error = await refusal(supervise, tmp_path)
    assert "holds no config.json and so no checkpoint" in error.message


async def test_a_corrupt_file_is_refused_by_name(supervise: Callable[[], Supervisor], tiny: Path) -> None:
    weights = tiny / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    error = await refusal(supervise, tiny)
    assert error.code == "broken_file"
    assert "corrupt" in error.message
    weights.write_bytes(b"not a tensor in sight")
    with pytest.raises(PagodaError, match=r"model\.safetensors is broken"):
        Transformers().memory(local(tiny), tiny, Room(threads=1, parallel=1, context=0))


async def test_a_checkpoint_that_lacks_tensors_is_refused(supervise: Callable[[], Supervisor], tiny: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(tiny / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, tiny / "model.safetensors", metadata={"format": "pt"})
    error = await refusal(supervise, tiny)
    assert "lack model.layers.1.mlp.up_proj.weight" in error.message


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


async def test_a_pickle_is_refused_and_not_run(supervise: Callable[[], Supervisor], tiny: Path, tmp_path: Path) -> None:
    import torch

    fuse = tmp_path / "went-off"
    torch.save({"weight": _Bomb(fuse)}, tiny / "pytorch_model.bin")
    (tiny / "model.safetensors").unlink()
    error = await refusal(supervise, tiny)
    assert "only pickles (pytorch_model.bin), which Pagoda never loads" in error.message
    assert not fuse.exists()


async def test_code_of_the_checkpoint_is_run_only_for_an_entry_that_allows_it(
    supervise: Callable[[], Supervisor], tiny: Path, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    code = (
        f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
        "from transformers import LlamaConfig\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own-kind'\n"
    )
    (tiny / "own.py").write_text(code)
    config = json.loads((tiny / "config.json").read_text())
    config |= {"model_type": "own-kind", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (tiny / "config.json").write_text(json.dumps(config))
    error = await refusal(supervise, tiny)
    assert error.code == "untrusted_code"
    assert "trust_remote_code" in error.message
    assert not ran.exists()
    await refusal(supervise, tiny, trust_remote_code=True)  # its config is known now; no model class belongs to it
    assert ran.exists()


async def test_an_architecture_without_paged_attention_is_refused_with_the_reason(
    supervise: Callable[[], Supervisor], tiny: Path
) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    MambaForCausalLM(MambaConfig(vocab_size=49152, hidden_size=32, num_hidden_layers=2)).save_pretrained(tiny)
    error = await refusal(supervise, tiny)
    assert "MambaForCausalLM by continuous batching" in error.message or "mamba" in error.message.lower()
    assert isinstance(error, Unavailable)
    assert error.code == "unsupported_architecture"


async def test_cuda_that_is_not_there_is_refused(tiny: Path, supervise: Callable[[], Supervisor]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    import dataclasses

    supervisor = supervise()
    supervisor._room = dataclasses.replace(supervisor._room, device="cuda")
    try:
        with pytest.raises(Unavailable, match="no GPU is seen here"):
            await supervisor.load(local(tiny))
    finally:
        await supervisor.close()
