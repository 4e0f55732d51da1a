"""Models that sleep in the host's memory while another one has the GPU: a stand-in for vLLM in real processes."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.gpu.vllm_stand_in import shadow
from pagoda.core.setting_values import ByteSize
from pagoda.core.settings import Settings
from pagoda.model.catalog.entry import LocalPath, ModelEntry
from tests.services import Service, eventually, running

GIB = 1024**3
GPU = 7
"""GiB: room for one model that is awake (4 and its few weights) and another that sleeps (2)."""
SHAPE = {"num_hidden_layers": 1, "num_attention_heads": 1, "hidden_size": 8, "max_position_embeddings": 64}


@asynccontextmanager
async def service_of(
    settings: Settings, place: Path, *names: str, host: int = 64, arguments: tuple[str, ...] = ()
) -> AsyncIterator[Service]:
    models = []
    for name in names:
        checkpoint = place / name
        checkpoint.mkdir()
        (checkpoint / "config.json").write_text(json.dumps(SHAPE))
        (checkpoint / "model.safetensors").write_bytes(bytes(1000))
        models.append(ModelEntry(id=name, task="chat", engine="vllm", source=LocalPath(path=str(checkpoint))))
    engines = dataclasses.replace(
        settings.engines,
        memory=ByteSize(host * GIB),
        gpu_memory=ByteSize(GPU * GIB),
        swap_seconds=0.2,
        vllm_sleep=True,
        vllm_arguments=arguments,
    )
    async with running(dataclasses.replace(settings, engines=engines), models) as service:
        yield service


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", shadow(tmp_path / "shadow") + os.pathsep + os.environ.get("PYTHONPATH", ""))


async def rows(service: Service) -> dict[str, Any]:
    """The rows of these models by id."""
    async with service.session.get(service.url + "/api/v1/models") as response:
        return {row["id"]: row for row in (await response.json())["data"] if row["engine"] == "vllm"}


async def ask(service: Service, model: str) -> None:
    status, answer = await service.chat("hello there", model=model, max_tokens=4, temperature=1)
    assert status == 200, answer


async def test_a_model_sleeps_while_another_needs_the_gpu_and_wakes_when_asked(
    settings: Settings, tmp_path: Path
) -> None:
    async with service_of(settings, tmp_path, "one", "two") as service:
        await ask(service, "one")
        await ask(service, "two")
        seen = await rows(service)
        assert {name: row["state"] for name, row in seen.items()} == {"one": "asleep", "two": "ready"}
        kept = {"host": 6 * GIB + 1000, "gpu": 2 * GIB}
        assert (seen["one"]["held"], seen["one"]["need"]["asleep"]) == (kept, kept)
        assert seen["two"]["held"]["host"] == 6 * GIB

        swaps = [ask(service, name) for _ in range(6) for name in ("one", "two")]
        await asyncio.gather(*swaps)
        after = await rows(service)
        assert {name: (row["pid"], row["loads"]) for name, row in after.items()} == {
            name: (row["pid"], 1) for name, row in seen.items()
        }, "the processes stayed"
        asleep = next(name for name, row in after.items() if row["state"] == "asleep")

        os.kill(after[asleep]["pid"], signal.SIGKILL)
        await eventually(lambda: not psutil.pid_exists(after[asleep]["pid"]))
        await ask(service, asleep)
        again = (await rows(service))[asleep]
        assert (again["state"], again["loads"]) == ("ready", 2)

        (other,) = after.keys() - {asleep}
        assert (await service.post(f"/api/v1/models/{other}/unload", {}))[0] == 200
        assert (await rows(service))[other]["state"] == "unloaded"
        await eventually(lambda: not psutil.pid_exists(after[other]["pid"]))


@pytest.mark.parametrize(("host", "fault"), [(64, "sleep"), (64, "deaf"), (64, "wake"), (12, "")])
async def test_a_model_that_cannot_sleep_or_wake_is_ended_and_loaded_again(
    settings: Settings, tmp_path: Path, host: int, fault: str
) -> None:
    """``deaf`` takes the order and does nothing; on 12 GiB of the host two servers find room, and no weights beside."""
    arguments = (f"--stand-in-fault={fault}",) if fault else ()
    async with service_of(settings, tmp_path, "one", "two", host=host, arguments=arguments) as service:
        await ask(service, "one")
        await ask(service, "two")
        first = await rows(service)
        assert first["one"]["state"] == ("asleep" if fault == "wake" else "unloaded")
        await ask(service, "one")
        await ask(service, "one")
        assert (await rows(service))["one"]["loads"] == 2
