"""The engine contract of embeddings, run over every kind that embeds, with the packaged models and the fake."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from pagoda.core.errors import ContextTooLong, InvalidRequest, Rejected, Unavailable
from pagoda.core.settings import Engines
from pagoda.core.types import Detokenize, Embed, Tokenize
from pagoda.model.catalog.entry import ModelEntry
from pagoda.model.engines import engine_kind
from pagoda.model.engines.contract import Engine, Room
from pagoda.service.host import StartGround
from pagoda.service.supervisor import Supervisor
from tests.contract.test_engines import VLLM, builtin_shelf
from tests.services import children_named, eventually, fake_model

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.real_model,
    pytest.mark.skipif(bool(VLLM), reason="shown with the packaged models, on any machine"),
]
TEXTS = ("A cat sits on the mat.", "一只猫坐在垫子上。", "Quarterly revenue grew by 12 %.")
BENCHES = {
    "minilm-onnxruntime": ("all-minilm-l6-v2", "onnxruntime"),
    "e5-onnxruntime": ("multilingual-e5-small", "onnxruntime"),
    "minilm-llamacpp": ("all-minilm-l6-v2", "llamacpp"),
    "minilm-transformers": ("all-minilm-l6-v2-checkpoint", "transformers"),
    "fake": ("fake", "fake"),
}


NEW = [name for name, (_, kind) in BENCHES.items() if kind == "onnxruntime"]
REAL = [name for name, (_, kind) in BENCHES.items() if kind != "fake"]


@dataclasses.dataclass
class Bench:
    """An engine under test."""

    engine: Engine
    model: ModelEntry
    path: Path | None
    supervisor: Supervisor

    async def embed(self, *texts: str) -> list[list[float]]:
        answer = await self.engine.embed(Embed(model=self.model.id, inputs=texts))
        return [list(row) for row in answer.floats()]


@pytest_asyncio.fixture(params=list(BENCHES), loop_scope="module", scope="module")
async def bench(
    request: pytest.FixtureRequest, models_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bench]:
    name, kind = BENCHES[request.param]
    shelf = builtin_shelf(models_directory)

    def locate(entry: ModelEntry) -> Path | None:
        return None if kind == "fake" else shelf.store.locate(entry)

    logs = tmp_path_factory.mktemp("logs")
    ground = StartGround(locate=locate, logs=logs, environment={}, start_seconds=60)
    supervisor = Supervisor(ground, Engines(threads=2))
    model = fake_model(name, task="embedding") if kind == "fake" else shelf.catalog.find(name)
    model = dataclasses.replace(model, engine=kind)
    try:
        yield Bench(await supervisor.load(model), model, locate(model), supervisor)
    finally:
        await supervisor.close()


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def test_vectors_have_unit_length_and_keep_their_order(bench: Bench) -> None:
    asked = Embed(model=bench.model.id, inputs=TEXTS)
    together = await bench.engine.embed(asked)
    alone = [await bench.engine.embed(dataclasses.replace(asked, inputs=(text,))) for text in TEXTS]
    assert together.dimensions == (bench.model.dimensions or 384)
    assert together.engine == bench.model.engine
    for row, single in zip(together.floats(), alone, strict=True):
        assert dot(list(row), list(row)) == pytest.approx(1, abs=1e-5)
        assert dot(list(row), list(single.floats()[0])) > 0.9999
    assert together.prompt_tokens == sum(answer.prompt_tokens for answer in alone)


@pytest.mark.parametrize("bench", REAL, indirect=True)
async def test_a_text_over_the_limit_fails_its_own_request_alone(bench: Bench) -> None:
    expected = await bench.embed("short")
    long = bench.embed("word " * 600, "short")
    refused, *answered = await asyncio.gather(long, *(bench.embed("short") for _ in range(4)), return_exceptions=True)
    assert isinstance(refused, ContextTooLong)
    assert refused.limit == 512
    assert refused.tokens > 512
    for rows in answered:
        assert isinstance(rows, list)
        assert dot(rows[0], expected[0]) > 0.9999


async def test_only_the_parent_is_answered(bench: Bench) -> None:
    url = bench.engine.url + "/embeddings"  # type: ignore[attr-defined]
    async with aiohttp.ClientSession() as stranger:
        for headers in ({}, {"Authorization": "Bearer guess"}):
            async with stranger.post(url, json={"input": "x", "model": "x"}, headers=headers) as response:
                assert response.status == 401


async def test_progress_counts_tokens_and_rest_is_told(bench: Bench) -> None:
    before = (await bench.engine.health()).progress
    tokens = (await bench.engine.embed(Embed(model=bench.model.id, inputs=TEXTS))).prompt_tokens
    health = await bench.engine.health()
    assert health.alive
    assert health.running == 0
    assert health.progress - before >= tokens
    assert (vitals := await bench.engine.vitals()) is not None
    assert vitals.running == 0


@pytest.mark.parametrize("bench", [*NEW, "minilm-transformers"], indirect=True)
async def test_a_request_that_is_left_frees_the_engine(bench: Bench) -> None:
    left = asyncio.create_task(bench.embed(*(f"{number} " + "many words " * 100 for number in range(400))))
    await asyncio.sleep(0)
    await eventually_running(bench.engine)
    left.cancel()
    idle = asyncio.Event()

    async def look() -> None:
        if (await bench.engine.health()).running == 0:
            idle.set()

    await look()
    await eventually(lambda: idle.is_set() or not asyncio.ensure_future(look()), 5)


async def eventually_running(engine: Engine) -> None:
    async with asyncio.timeout(10):
        while (await engine.health()).running == 0:
            await asyncio.sleep(0.01)


async def test_tokens_are_counted_as_the_answer_counts_them(bench: Bench) -> None:
    tokens = await bench.engine.tokenize(Tokenize(model=bench.model.id, text=TEXTS[0], special=True, pieces=True))
    assert tokens.pieces is not None
    assert len(tokens.pieces) == len(tokens.ids)
    answer = await bench.engine.embed(Embed(model=bench.model.id, inputs=(TEXTS[0],)))
    assert answer.prompt_tokens == len(tokens.ids)
    if bench.model.engine == "fake":
        return
    by_ids = await bench.engine.embed(Embed(model=bench.model.id, inputs=(tokens.ids,)))
    assert dot(list(by_ids.floats()[0]), list(answer.floats()[0])) > 0.9999
    with pytest.raises(Rejected, match="vocabulary"):
        await bench.engine.detokenize(Detokenize(model=bench.model.id, ids=(10**7,)))


@pytest.mark.parametrize("bench", NEW, indirect=True)
async def test_an_encoder_holds_no_conversation(bench: Bench) -> None:
    assert not bench.engine.profile.generate
    with pytest.raises(InvalidRequest, match="no chat template"):
        await bench.engine.tokenize(Tokenize(model=bench.model.id, messages=({"role": "user", "content": "Hi"},)))


@pytest.mark.parametrize("bench", NEW, indirect=True)
async def test_the_memory_estimate_is_near_what_the_process_uses(bench: Bench) -> None:
    estimate = engine_kind(bench.model.engine).memory(bench.model, bench.path, Room(threads=2, parallel=4, context=512))
    await bench.embed(*("many words " * 100 for _ in range(8)))
    used = max(child.memory_info().rss for child in children_named(f"{bench.model.engine}_child"))
    print(f"{bench.model.id}: estimated {estimate.total / 2**20:.0f} MiB, used {used / 2**20:.0f} MiB")
    assert 0.5 * used < estimate.total < 2 * used


@pytest.mark.parametrize("bench", NEW[:1], indirect=True)
async def test_a_killed_engine_is_started_again_and_gives_the_same_vectors(bench: Bench) -> None:
    before = await bench.embed(TEXTS[0])
    (child,) = children_named(f"{bench.model.engine}_child")
    child.kill()
    child.wait()
    after: list[list[float]] = []
    async with asyncio.timeout(30):
        while not after:
            bench.engine = await bench.supervisor.load(bench.model)
            with suppress(Unavailable):  # until the supervisor has seen that it is gone
                after = await bench.embed(TEXTS[0])
    assert dot(after[0], before[0]) > 0.9999
