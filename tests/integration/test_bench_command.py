"""``pagoda bench engine`` as a process, against scripted models of known delays. Speed has no upper bound here."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pagoda.core.settings import Settings
from pagoda.model.catalog.entry import LocalPath, ModelEntry
from pagoda.model.catalog.opening import open_shelf
from pagoda.model.engines.fake_child import build_app
from pagoda.service.presence import Presence
from tests.services import Service, eventually, fake_model, running

FIRST, TOKEN = 0.2, 0.02


async def start(
    home: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> asyncio.subprocess.Process:
    home.mkdir(parents=True, exist_ok=True)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pagoda", "bench", "engine", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=home,
        env={**os.environ, "PAGODA_HOME": str(home), **(environment or {})},
    )


async def bench(home: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> tuple[Any, str]:
    """The report and what was shown on standard error."""
    child = await start(home, *arguments, "--json", environment=environment)
    out, said = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 0, said.decode()
    return json.loads(out), said.decode()


async def refused(home: Path, *arguments: str) -> str:
    """What a command says that ends with a refusal."""
    child = await start(home, *arguments)
    out, said = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode in (1, 2), out.decode()
    assert "Traceback" not in said.decode()
    return said.decode()


def at(service: Service, model: str = "fake-chat", tokens: int = 16) -> list[str]:
    return ["--url", service.url, "--model", model, "--input-tokens", "64", "--output-tokens", str(tokens)]


@pytest.fixture
async def slow(settings: Settings) -> AsyncIterator[Service]:
    async with running(settings, [fake_model(first_seconds=FIRST, token_seconds=TOKEN)]) as service:
        yield service


async def test_a_closed_loop_finds_the_scripted_delays(slow: Service, tmp_path: Path) -> None:
    report, said = await bench(
        tmp_path / "client",
        *at(slow),
        *("--concurrency", "1,4", "--requests", "8", "--warmup", "2", "--goodput", "ttft=30,itl=10"),
    )
    assert "measuring: warm-up" in said
    assert report["input_exact"]
    assert [load["load"] for load in report["loads"]] == [
        {"kind": "closed", "concurrency": 1},
        {"kind": "closed", "concurrency": 4},
    ]
    for load in report["loads"]:
        assert (load["done"], load["failed"], load["unfinished"]) == (8, {}, 0)
        assert load["input_tokens"]["min"] == load["input_tokens"]["max"] == 64
        assert load["output_tokens"]["min"] == load["output_tokens"]["max"] == 16
        assert load["tokens_counted_by"] == "target"
        assert load["first_token_seconds"]["min"] >= FIRST
        assert load["token_seconds"]["min"] >= TOKEN * 0.9  # the first gap may be shorter than the script's
        assert load["between_frames_seconds"]["mean"] >= TOKEN * 0.9
        assert load["latency_seconds"]["min"] >= FIRST + 15 * TOKEN
        assert load["goodput"]["requests"] == 8
        assert load["memory_bytes"]["host"] > 1_000_000, "the engine's process was looked at"
    one, four = report["loads"]
    assert one["output_tokens_per_second"] <= 16 / (FIRST + 15 * TOKEN)
    assert four["seconds"] < one["seconds"], "four at once overlap"
    assert not report["interrupted"]


async def test_a_bound_that_nothing_keeps_leaves_no_goodput(slow: Service, tmp_path: Path) -> None:
    report, _ = await bench(tmp_path / "client", *at(slow), "--requests", "2", "--goodput", f"ttft={FIRST / 2}")
    assert report["loads"][0]["goodput"]["requests"] == 0
    assert report["loads"][0]["done"] == 2


async def test_at_a_fixed_rate_waiting_behind_others_counts(settings: Settings, tmp_path: Path) -> None:
    """An engine that answers one at a time falls behind; a client that waited for it would not show that."""
    async with running(settings, [fake_model(first_seconds=FIRST, parallel=1)]) as service:
        report, _ = await bench(
            tmp_path / "client",
            *at(service, tokens=1),
            *("--rate", "50", "--arrivals", "constant", "--requests", "10"),
        )
    load = report["loads"][0]
    assert load["load"] == {"kind": "open", "rate": 50.0, "arrivals": "constant"}
    assert load["done"] == 10
    # The last is due after 0.18 s and answered after ten turns: it has waited for nine others.
    assert load["first_token_seconds"]["max"] >= 10 * FIRST - 9 / 50


async def test_failures_are_counted_by_reason_and_not_repeated(settings: Settings, tmp_path: Path) -> None:
    rules = [
        {"contains": "full", "fault": "status", "status": 429},
        {"contains": "broken", "fault": "status", "status": 500},
        {"contains": "cut", "fault": "cut", "fault_at": 2},
    ]
    dataset = tmp_path / "asked.jsonl"
    words = ["fine with me", "full of it", "broken and bent", "cut in two pieces"]
    dataset.write_text("".join(json.dumps({"prompt": word}) + "\n" for word in words))
    async with running(settings, [fake_model(rules=rules)]) as service:
        report, _ = await bench(
            tmp_path / "client",
            *("--url", service.url, "--model", "fake-chat", "--dataset", str(dataset), "--requests", "8"),
        )
        asked = service.platform.telemetry.http_requests
        counted = sum(
            sample.value
            for metric in asked.collect()
            for sample in metric.samples
            if sample.name.endswith("_total") and sample.labels["endpoint"] == "/v1/chat/completions"
        )
    load = report["loads"][0]
    assert load["done"] == 2
    assert load["failed"] == {"HTTP 429 with Retry-After": 2, "HTTP 503 with Retry-After": 2, "error in the stream": 2}
    assert "scripted refusal" in load["failed_said"]["HTTP 429 with Retry-After"]
    assert counted == 8 + 2, "each once, and two questions about the target"


async def test_embeddings_and_completions(settings: Settings, tmp_path: Path) -> None:
    models = [fake_model(), fake_model("fake-embed", task="embedding")]
    async with running(settings, models) as service:
        embedded, _ = await bench(
            tmp_path / "client",
            *at(service, "fake-embed"),
            *("--endpoint", "embeddings", "--concurrency", "2", "--requests", "6"),
        )
        completed, _ = await bench(tmp_path / "client", *at(service), "--endpoint", "completions", "--requests", "3")
    load = embedded["loads"][0]
    assert (load["done"], load["first_token_seconds"], load["token_seconds"]) == (6, None, None)
    assert load["input_tokens"]["max"] == 64
    assert load["latency_seconds"]["min"] > 0
    assert completed["loads"][0]["output_tokens"]["min"] == 16


async def test_the_same_seed_asks_the_same_and_no_cache_answers(slow: Service, tmp_path: Path) -> None:
    for _ in range(2):
        report, _ = await bench(tmp_path / "client", *at(slow, tokens=4), "--requests", "2", "--seed", "7")
        assert report["seed"] == 7
        assert report["loads"][0]["first_token_seconds"]["min"] >= FIRST, "computed, not remembered"


async def test_ctrl_c_prints_what_there_is(slow: Service, tmp_path: Path) -> None:
    place = tmp_path / "report.json"
    child = await start(
        tmp_path / "client", *at(slow), "--concurrency", "2", "--requests", "10000", "--json", str(place)
    )

    def answered() -> float:
        return slow.platform.telemetry.http_requests.count("/v1/chat/completions", "200").value

    await eventually(lambda: answered() >= 5, 30)
    child.send_signal(signal.SIGINT)
    out, said = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == 130, said.decode()
    assert "Interrupted: these are the figures until then." in out.decode()
    load = json.loads(place.read_text())["loads"][0]
    assert load["interrupted"]
    assert load["done"] >= 2
    assert 1 <= load["unfinished"] <= 2, "those in flight are neither answered nor failed"
    assert load["failed"] == {}
    assert load["first_token_seconds"]["min"] >= FIRST


@asynccontextmanager
async def peer(**script: Any) -> AsyncIterator[TestServer]:
    """Some other server of the OpenAI API: it wants a key, takes any parameter and has no Pagoda behind it."""
    server = TestServer(build_app(script, "peer-key"), host="127.0.0.1")
    await server.start_server()
    try:
        yield server
    finally:
        await server.close()


async def test_a_peer_is_measured_by_the_same_tool_with_its_key(tmp_path: Path) -> None:
    async with peer(first_seconds=FIRST) as server:
        asked = ["--url", str(server.make_url("/v1")), "--model", "any", "--input-tokens", "32", "--output-tokens", "4"]
        report, _ = await bench(
            tmp_path, *asked, "--requests", "2", "--key-env", "PEER_KEY", environment={"PEER_KEY": "peer-key"}
        )
        said = await refused(tmp_path, *asked)
    assert report["ignore_eos"], "a server that takes it is asked for exact lengths"
    load = report["loads"][0]
    assert load["memory_bytes"] is None, "nothing is known of another's memory"
    assert load["done"] == 2
    assert load["first_token_seconds"]["min"] >= FIRST
    assert "status 401" in said


async def test_words_that_are_several_tokens_are_left_out_where_the_target_can_be_asked(tmp_path: Path) -> None:
    """A tokenizer that splits words with an ``e``: lengths are exact all the same."""

    def count(text: str) -> int:
        return sum(1 + ("e" in word and word != "the") for word in text.split())

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        text = body["messages"][0]["content"]
        usage = {"prompt_tokens": 5 + count(text), "completion_tokens": 1}
        frames = [{"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}, {"choices": [], "usage": usage}]
        return web.Response(
            text="".join(f"data: {json.dumps(frame)}\n\n" for frame in frames), content_type="text/event-stream"
        )

    async def tokenize(request: web.Request) -> web.Response:
        return web.json_response({"tokens": [0] * count((await request.json())["prompt"])})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    app.router.add_post("/tokenize", tokenize)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    try:
        report, _ = await bench(
            tmp_path, "--url", str(server.make_url("/")), "--model", "any", "--input-tokens", "40", "--requests", "5"
        )
    finally:
        await server.close()
    assert report["input_exact"]
    assert report["loads"][0]["input_tokens"] | {"mean": 40.0} == {
        name: 40.0 for name in report["loads"][0]["input_tokens"]
    }


async def test_without_a_service_one_is_started_for_as_long_as_needed(settings: Settings) -> None:
    open_shelf(settings).catalog.add(fake_model())
    report, _ = await bench(
        settings.home,
        *("--requests", "2", "--input-tokens", "32", "--output-tokens", "4", "--set", "defaults.chat=fake-chat"),
    )
    assert report["model"] == "fake-chat"
    assert report["loads"][0]["done"] == 2
    await eventually(lambda: Presence(settings.home).find() is None, 20)


async def test_an_engine_is_chosen_for_the_measurement_alone(settings: Settings, tmp_path: Path) -> None:
    """What cannot change its engine says so; a copy that could not start leaves nothing behind."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    shelf = open_shelf(settings)
    shelf.catalog.add(fake_model())
    shelf.catalog.add(ModelEntry(id="mine", task="chat", engine="llamacpp", source=LocalPath(path=str(folder))))
    arguments = ["--requests", "1", "--engine", "transformers", "--model"]
    assert "no file of it to hand over" in await refused(settings.home, *arguments, "fake-chat")
    assert "mine-on-transformers" in await refused(settings.home, *arguments, "mine")
    assert {entry.id for entry in shelf.catalog.entries() if not entry.builtin} == {"fake-chat", "mine"}
    assert "There is no engine named" in await refused(settings.home, "--engine", "steam", "--model", "mine")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "http://127.0.0.1:9"], "--url needs --model"),
        (["--url", "http://127.0.0.1:9", "--model", "m", "--engine", "vllm"], "--engine is for models of this machine"),
        (["--url", "127.0.0.1:9", "--model", "m"], "must begin with http://"),
        (["--url", "http://127.0.0.1:9", "--model", "m"], "does not answer"),
        (["--key-env", "NOT_SET_HERE"], "no such environment variable"),
        (["--plot", "seen.pdf"], "must end in .svg or .png"),
        (["--shared-prefix", "600"], "cannot be longer"),
        (["--goodput", "speed=1"], "ttft=0.5,itl=0.05"),
        (["--concurrency", "0"], "at least 1"),
    ],
)
async def test_wrong_use_is_a_sentence(arguments: list[str], said: str, tmp_path: Path) -> None:
    assert said in await refused(tmp_path, *arguments)
