"""The engine contract, run over every kind.

llama.cpp with the packaged model, transformers with the same model as a checkpoint, the fake, and a remote address.
On a GPU host ``PAGODA_TEST_VLLM=CHECKPOINT`` runs it over vLLM instead (``benchmarks/gpu/contract.sh``).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from pagoda.core.configuration import load_settings
from pagoda.core.errors import ContextTooLong, InvalidRequest, Rejected
from pagoda.core.settings import Engines
from pagoda.core.types import (
    Delta,
    Detokenize,
    Event,
    Finish,
    Generation,
    OutputFormat,
    Sampling,
    Score,
    Started,
    Tokenize,
    Usage,
)
from pagoda.model.catalog.entry import LocalPath, ModelEntry, RemoteAddress
from pagoda.model.catalog.opening import Shelf, open_shelf
from pagoda.model.engines import KINDS, engine_kind
from pagoda.model.engines.contract import Engine, KvType, Room
from pagoda.service.host import StartGround
from pagoda.service.supervisor import Supervisor
from tests.services import children_named, eventually, fake_model

CHAT = "smollm2-135m-instruct"
VLLM = os.environ.get("PAGODA_TEST_VLLM", "")
"""A checkpoint folder: vLLM is under the contract, and nothing else, since the packaged models are not there."""
REAL = {"vllm": VLLM} if VLLM else {"llamacpp": CHAT, "transformers": "smollm2-135m-instruct-hf"}
"""The same model for each engine that runs models."""
not_on_gpu = pytest.mark.skipif(bool(VLLM), reason="shown with the packaged models, on any machine")
GREEDY = Sampling(temperature=0)
ROOM = Room(threads=2, parallel=4, context=1024)
SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 1, "maximum": 99}},
    "required": ["age"],
    "additionalProperties": False,
}


@dataclass
class Bench:
    """An engine under test with what its kind can show."""

    kind: str
    engine: Engine
    real: bool


def ask(text: str, **fields: object) -> Generation:
    return Generation(model="any", messages=({"role": "user", "content": text},), **fields)  # type: ignore[arg-type]


def builtin_shelf(models_directory: Path) -> Shelf:
    """The catalog and store with the packaged models."""
    environment = {"PAGODA_HOME": str(models_directory.parent)}
    return open_shelf(load_settings({"models.directory": str(models_directory)}, environment, models_directory))


def real_model(shelf: Shelf, kind: str) -> ModelEntry:
    if kind == "vllm":
        return ModelEntry(id="real", task="chat", engine="vllm", source=LocalPath(path=VLLM))
    return shelf.catalog.resolve(REAL[kind])


async def gather(engine: Engine, request: Generation) -> tuple[list[str], list[str], Usage, list[Event]]:
    """Texts and finish reasons by choice, usage, and all events; checks the order that the port promises."""
    texts, finishes = [""] * request.n, [""] * request.n
    events = [event async for event in engine.generate(request)]
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Usage)
    for event in events[1:-1]:
        match event:
            case Delta(index, text):
                assert not finishes[index], "text after the end of a choice"
                texts[index] += text
            case Finish(index, reason):
                assert not finishes[index], "a choice ended twice"
                finishes[index] = reason
            case _:
                raise AssertionError(f"{event} in the middle")
    assert all(finishes)
    return texts, finishes, events[-1], events


@pytest_asyncio.fixture(params=[*REAL] if VLLM else [*REAL, "fake", "remote"], loop_scope="module", scope="module")
async def bench(
    request: pytest.FixtureRequest, models_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bench]:
    kind: str = request.param
    logs = tmp_path_factory.mktemp("logs")
    shelf = builtin_shelf(models_directory)
    ground = StartGround(
        locate=lambda entry: shelf.store.locate(entry) if entry.engine in REAL else None,
        logs=logs,
        environment={"REMOTE_KEY": "secret"},
        start_seconds=300 if VLLM else 60,
    )
    supervisor = Supervisor(ground, Engines(threads=2, parallel=4, context=1024))
    model = real_model(shelf, kind) if kind in REAL else fake_model(context=1024)
    engine = await supervisor.load(model)
    if kind == "remote":
        entry = ModelEntry(
            id="far",
            task="chat",
            engine="remote",
            source=RemoteAddress(url=engine.url, model="far"),  # type: ignore[attr-defined]
        )
        key = engine.session.headers["Authorization"].removeprefix("Bearer ")  # type: ignore[attr-defined]
        remote = await engine_kind("remote").connect(entry, entry.source.url, key, ROOM)  # type: ignore[union-attr]
        yield Bench(kind, remote, real=False)
        await remote.close()
    else:
        yield Bench(kind, engine, real=kind in REAL)
    await supervisor.close()


real_only = pytest.mark.parametrize("bench", list(REAL), indirect=True)
"""What a script cannot show."""

pytestmark = [pytest.mark.asyncio(loop_scope="module"), *(() if VLLM else (pytest.mark.real_model,))]


async def test_every_registered_kind_is_under_this_contract(bench: Bench) -> None:
    assert bench.kind in KINDS
    elsewhere = {"onnxruntime"}  # embeds only: test_embedding_engines.py
    assert set(KINDS) == {"llamacpp", "transformers", "fake", "remote", "vllm"} | elsewhere, "a kind has no place here"


async def test_an_answer_is_started_text_finish_usage(bench: Bench) -> None:
    texts, finishes, usage, _ = await gather(bench.engine, ask("Say hello", max_tokens=6, sampling=GREEDY))
    assert texts[0].strip()
    assert finishes[0] in ("stop", "length")
    assert usage.prompt_tokens > 0
    assert 0 < usage.completion_tokens <= 6


async def test_greedy_answers_are_equal_and_length_is_kept(bench: Bench) -> None:
    request = ask("Count to twenty in words, please", max_tokens=5, sampling=GREEDY)
    first, second = await asyncio.gather(gather(bench.engine, request), gather(bench.engine, request))
    assert first[0] == second[0]
    assert first[1] == ["length"]
    assert first[2].completion_tokens == 5


async def test_a_seed_repeats_a_sampled_answer(bench: Bench) -> None:
    def seeded(seed: int) -> Generation:
        sampling = Sampling(temperature=1.5, seed=seed)
        return ask("one two three four five six seven eight nine", max_tokens=9, sampling=sampling)

    answers = [(await gather(bench.engine, seeded(seed)))[0][0] for seed in (7, 7, 8, 9, 10)]
    assert answers[0] == answers[1]
    assert len(set(answers[1:])) > 1, "other seeds should give other answers"


async def test_greedy_and_sampled_side_by_side_do_not_disturb_each_other(bench: Bench) -> None:
    greedy = ask("Tell me about the sea", max_tokens=8, sampling=GREEDY)
    alone = (await gather(bench.engine, greedy))[0]
    wild = ask("Tell me about the sky", max_tokens=8, sampling=Sampling(temperature=2.0))
    together = await asyncio.gather(
        gather(bench.engine, wild), gather(bench.engine, greedy), gather(bench.engine, wild)
    )
    assert together[1][0] == alone


async def test_usage_counts_every_choice(bench: Bench) -> None:
    _, finishes, usage, _ = await gather(bench.engine, ask("Say something", max_tokens=4, n=3, sampling=GREEDY))
    assert len(finishes) == 3
    assert usage.completion_tokens == sum(4 if finish == "length" else 3 for finish in finishes)


async def test_a_stop_sequence_ends_the_answer_and_is_not_shown(bench: Bench) -> None:
    whole = (await gather(bench.engine, ask("Write a sentence about a cat", max_tokens=12, sampling=GREEDY)))[0][0]
    stop = whole.split()[2]
    texts, finishes, usage, _ = await gather(
        bench.engine, ask("Write a sentence about a cat", max_tokens=12, sampling=GREEDY, stop=(stop,))
    )
    assert texts[0] == whole[: whole.index(stop)]
    assert finishes == ["stop"]
    assert usage.prompt_tokens > 0


async def test_logprobs_cover_the_answer_token_by_token(bench: Bench) -> None:
    request = ask("Say hello", max_tokens=6, sampling=GREEDY, top_logprobs=3)
    texts, _, usage, events = await gather(bench.engine, request)
    tokens = [token for event in events if isinstance(event, Delta) for token in event.logprobs]
    assert "".join(token.token for token in tokens) == texts[0]
    assert len(tokens) in (usage.completion_tokens, usage.completion_tokens - 1)  # the end of turn has no text
    for token in tokens:
        assert token.logprob <= 0
        assert len(token.top) == 3
        if bench.real:
            assert token.top[0].logprob >= token.top[1].logprob
            assert token.top[0].token == token.token, "greedy takes the likeliest"


async def test_logprobs_survive_a_stop_sequence(bench: Bench) -> None:
    plain = ask("Write a sentence about a cat", max_tokens=12, sampling=GREEDY, top_logprobs=0)
    whole, _, _, all_events = await gather(bench.engine, plain)
    stop = "".join(whole[0].split()[3][:2])
    request = ask("Write a sentence about a cat", max_tokens=12, sampling=GREEDY, top_logprobs=0, stop=(stop, "zzz"))
    texts, finishes, usage, events = await gather(bench.engine, request)
    expected = [token for event in all_events if isinstance(event, Delta) for token in event.logprobs]
    tokens = [token for event in events if isinstance(event, Delta) for token in event.logprobs]
    assert texts[0] == whole[0][: whole[0].index(stop)]
    assert finishes == ["stop"]
    assert tokens == expected[: len(tokens)]
    assert len("".join(token.token for token in tokens)) >= len(texts[0])
    assert usage.prompt_tokens > 0


@not_on_gpu
@real_only
async def test_the_memory_estimate_is_near_what_the_process_uses(bench: Bench, models_directory: Path) -> None:
    shelf = builtin_shelf(models_directory)
    model = shelf.catalog.resolve(REAL[bench.kind])
    path = shelf.store.locate(model)
    estimate = engine_kind(bench.kind).memory(model, path, ROOM)
    assert path is not None
    values = 30 * 3 * (64 + 64)  # layers, heads, key and value
    if bench.kind == "llamacpp":
        assert estimate.weights == path.stat().st_size
        slots = values * 2 * 1024 * 4  # bytes, context, slots
        assert estimate.kv_cache == 2 * slots, "as much again for prompts that lost their slot"
    else:
        weights = (path / "model.safetensors").stat().st_size
        assert weights * 0.999 < estimate.weights < weights, "all but the header"
        assert estimate.kv_cache == values * 4 * (1024 * 4 + 2 * 32)  # bytes, and two pages that padding falls on
    await asyncio.gather(*(gather(bench.engine, ask(f"Say {number}", max_tokens=2)) for number in range(4)))
    name = f"{bench.kind}_child"
    used = max(child.memory_info().rss for child in children_named(name))
    print(f"{bench.kind}: estimated {estimate.total / 2**20:.0f} MiB, used {used / 2**20:.0f} MiB")
    assert 0.5 * used < estimate.total < 2 * used


async def test_only_the_parent_is_answered(bench: Bench) -> None:
    url = bench.engine.url + "/models"  # type: ignore[attr-defined]
    async with aiohttp.ClientSession() as stranger:
        for headers in ({}, {"Authorization": "Bearer guess"}):
            async with stranger.post(
                url.replace("/models", "/completions"), json={"prompt": "x"}, headers=headers
            ) as response:
                assert response.status == 401


async def test_closing_the_stream_frees_the_engine_within_a_second(bench: Bench) -> None:
    stream = bench.engine.generate(ask("Tell a very long story about the sea " * 8, max_tokens=400))
    async with aclosing(stream) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Delta):
                break
    if bench.kind == "remote":
        return  # an OpenAI address says nothing of its work

    async def idle() -> bool:
        return (await bench.engine.health()).running == 0

    for _ in range(100):
        if await idle():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("still computing a second after the client left")


async def test_progress_grows_with_work(bench: Bench) -> None:
    before = (await bench.engine.health()).progress
    await gather(bench.engine, ask("Say hello again", max_tokens=4))
    after = await bench.engine.health()
    assert after.alive
    if bench.kind != "remote":
        assert after.progress > before


async def test_a_prompt_over_the_context_is_refused_with_both_numbers(bench: Bench) -> None:
    with pytest.raises(ContextTooLong) as caught:
        await gather(bench.engine, ask("word " * 3000, max_tokens=4))
    assert caught.value.limit == 1024
    assert caught.value.tokens >= 3000


@real_only
async def test_generation_without_a_length_ends_where_the_context_does(bench: Bench) -> None:
    assert bench.engine.context == 1024
    request = ask("hello " * 950, sampling=Sampling(logit_bias={2: -100.0, 0: -100.0}, temperature=0))
    _, finishes, usage, _ = await gather(bench.engine, request)
    assert finishes == ["length"]
    assert usage.prompt_tokens + usage.completion_tokens <= 1024


async def test_text_completion_takes_text_and_token_ids(bench: Bench) -> None:
    text = Generation(model="any", prompt="The capital of France is", max_tokens=3, sampling=GREEDY)
    texts, _, usage, _ = await gather(bench.engine, text)
    assert usage.prompt_tokens == 5
    if bench.real:
        ids = (await bench.engine.tokenize(Tokenize(model="any", text="The capital of France is"))).ids
        by_ids = Generation(model="any", prompt=ids, max_tokens=3, sampling=GREEDY)
        assert (await gather(bench.engine, by_ids))[0] == texts
        assert texts[0].startswith(" Paris")


@real_only
async def test_a_schema_is_enforced(bench: Bench) -> None:
    import json

    for temperature in (0.0, 1.5):
        request = ask(
            "How old is Bob?",
            max_tokens=60,
            sampling=Sampling(temperature=temperature, seed=1),
            output=OutputFormat(kind="json_schema", schema=SCHEMA),
        )
        texts, finishes, _, _ = await gather(bench.engine, request)
        assert finishes == ["stop"]
        answer = json.loads(texts[0])
        assert set(answer) == {"age"}
        assert 1 <= answer["age"] <= 99


async def test_unenforced_schema_keywords_are_named(bench: Bench) -> None:
    number = {"type": "integer", "multipleOf": 7}
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": number, "uniqueItems": True}}}
    request = ask("A number?", max_tokens=30, output=OutputFormat(kind="json_schema", schema=schema))
    async with aclosing(bench.engine.generate(request)) as events:  # type: ignore[type-var]
        started = await anext(aiter(events))
    assert isinstance(started, Started)
    assert bool(started.warnings) == bench.real
    if bench.real:
        assert "uniqueItems" in started.warnings[0]
        assert ("multipleOf" in started.warnings[0]) == (bench.kind == "llamacpp"), "llguidance holds to it"


@real_only
async def test_an_impossible_schema_is_refused_not_ignored(bench: Bench) -> None:
    bad = OutputFormat(kind="json_schema", schema={"type": "bogus"})
    with pytest.raises(Rejected):
        await gather(bench.engine, ask("x", max_tokens=4, output=bad))


async def test_scores_are_the_log_probabilities_of_generation(bench: Bench) -> None:
    request = Score(model="any", context="The capital of France is", text=" Paris. It")
    if bench.kind == "remote":
        with pytest.raises(InvalidRequest):
            await bench.engine.score(request)
        return
    scores = await bench.engine.score(request)
    assert "".join(token.token for token in scores.tokens) == " Paris. It"
    assert scores.total == pytest.approx(sum(token.logprob for token in scores.tokens))
    if bench.real:
        greedy = Generation(
            model="any", prompt="The capital of France is", max_tokens=2, sampling=GREEDY, top_logprobs=0
        )
        events = [event async for event in bench.engine.generate(greedy)]
        tokens = [token for event in events if isinstance(event, Delta) for token in event.logprobs]
        assert [token.token for token in tokens] == [" Paris", "."]
        for generated, scored in zip(tokens, scores.tokens, strict=False):
            assert scored.logprob == pytest.approx(generated.logprob, abs=2e-3)


@real_only
async def test_text_of_partial_characters_is_scored_too(bench: Bench) -> None:
    scores = await bench.engine.score(Score(model="any", context="Hello", text=" 世界"))
    joined = b"".join(bytes(token.bytes or ()) for token in scores.tokens)
    assert joined.decode() == " 世界"
    assert all(token.logprob < 0 for token in scores.tokens)


@real_only
async def test_log_probabilities_of_split_characters_are_whole_and_exact(bench: Bench) -> None:
    if bench.kind == "vllm":
        pytest.skip("its completions tell neither ids nor bytes of tokens; said in the guide")
    prompt = "你好，世界。" * 6
    request = Generation(model="any", prompt=prompt, max_tokens=20, sampling=GREEDY, top_logprobs=2)
    texts, _, usage, events = await gather(bench.engine, request)
    tokens = [token for event in events if isinstance(event, Delta) for token in event.logprobs]
    assert "你好" in texts[0], "the model should go on in Chinese"
    assert b"".join(bytes(token.bytes or ()) for token in tokens).decode() == texts[0]
    assert usage.completion_tokens - 3 <= len(tokens) <= usage.completion_tokens  # the last character may be unfinished
    assert all(len(token.top) == 2 for token in tokens)
    scored = await bench.engine.score(Score(model="any", context=prompt, text=texts[0]))
    assert [token.id for token in scored.tokens] == [token.id for token in tokens]
    for given, generated in zip(scored.tokens, tokens, strict=True):
        # Seen 0.064 between the two ways; probably quantised kernels round by the number of tokens in a batch.
        assert generated.logprob == pytest.approx(given.logprob, abs=0.1)


@real_only
async def test_a_trailing_assistant_message_is_a_turn_unless_continued(bench: Bench) -> None:
    messages = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello, I am"})
    continued = Generation(
        model="any", messages=messages, max_tokens=4, sampling=GREEDY, continue_final=True, top_logprobs=1
    )
    texts, _, _, events = await gather(bench.engine, continued)
    assert texts[0].startswith(" ")
    assert not texts[0].startswith("Hello"), "the prefix is not repeated"
    assert any(isinstance(event, Delta) and event.logprobs for event in events)
    answered = Generation(model="any", messages=messages, max_tokens=4, sampling=GREEDY)
    assert (await gather(bench.engine, answered))[0] != texts


@real_only
async def test_logit_bias_is_honoured(bench: Bench) -> None:
    token = (await bench.engine.tokenize(Tokenize(model="any", text="."))).ids[0]
    request = Generation(
        model="any", prompt="Say", max_tokens=3, sampling=Sampling(temperature=0, logit_bias={token: 100.0})
    )
    assert (await gather(bench.engine, request))[0] == ["..."]


async def test_tokenize_counts_what_generation_counts(bench: Bench) -> None:
    messages = ({"role": "user", "content": "Say hello to the world"},)
    if bench.kind == "remote":
        with pytest.raises(InvalidRequest):
            await bench.engine.tokenize(Tokenize(model="any", messages=messages))
        return
    ids = (await bench.engine.tokenize(Tokenize(model="any", messages=messages))).ids
    request = Generation(model="any", messages=messages, max_tokens=1)
    assert (await gather(bench.engine, request))[2].prompt_tokens == len(ids)


@pytest.mark.parametrize(
    "text", ["Hello world, it is 5.", "你好，世界。", "👩‍👩‍👧‍👦 and 🀄", " \n two  spaces\t", "<|im_start|>x"]
)
async def test_detokenize_undoes_tokenize(bench: Bench, text: str) -> None:
    if bench.kind == "remote":
        with pytest.raises(InvalidRequest):
            await bench.engine.detokenize(Detokenize(model="any", ids=(1,)))
        return
    tokens = await bench.engine.tokenize(Tokenize(model="any", text=text, pieces=True))
    assert (await bench.engine.detokenize(Detokenize(model="any", ids=tokens.ids))).text == text
    assert tokens.pieces is not None
    assert len(tokens.pieces) == len(tokens.ids)
    assert "".join(tokens.pieces) == text or "\ufffd" in "".join(tokens.pieces)


@real_only
async def test_ids_outside_the_vocabulary_are_refused(bench: Bench) -> None:
    with pytest.raises(Rejected, match="vocabulary"):
        await bench.engine.detokenize(Detokenize(model="any", ids=(10**7,)))


async def test_the_stop_sequence_that_was_met_is_named(bench: Bench) -> None:
    fields = {"max_tokens": 30, "sampling": GREEDY}
    whole, _, _, _ = await gather(bench.engine, ask("Say: one two three four five", **fields))
    stop = " three" if " three" in whole[0] else whole[0].split()[2]
    texts, _, usage, events = await gather(
        bench.engine, ask("Say: one two three four five", stop=("never met", stop), **fields)
    )
    assert texts[0] == whole[0][: whole[0].index(stop)]
    assert next(event for event in events if isinstance(event, Finish)).stop == stop
    assert usage.prompt_tokens > 0
    assert 0 < usage.completion_tokens < 30
    _, _, _, unmet = await gather(bench.engine, ask("Say: one two", stop=("never met",), **fields))
    assert next(event for event in unmet if isinstance(event, Finish)).stop is None


async def test_many_at_once_all_end(bench: Bench) -> None:
    requests = [ask(f"Say {number}", max_tokens=3, sampling=GREEDY) for number in range(12)]
    answers = await asyncio.gather(*(gather(bench.engine, request) for request in requests))
    assert len(answers) == 12
    if bench.kind != "remote":
        idle = asyncio.Event()

        async def look() -> None:
            if (await bench.engine.health()).running == 0:
                idle.set()

        await look()
        await eventually(lambda: idle.is_set() or not asyncio.ensure_future(look()))


@not_on_gpu
@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
async def test_keys_and_values_may_be_kept_in_eight_bits(
    kv_type: KvType, models_directory: Path, tmp_path: Path
) -> None:
    """The smaller cache answers as well, takes the memory that was counted for it, and reuses prefixes."""
    shelf = builtin_shelf(models_directory)
    ground = StartGround(locate=shelf.store.locate, logs=tmp_path, environment={}, start_seconds=60)
    supervisor = Supervisor(ground, Engines(threads=2, parallel=2, context=1024, kv_type=kv_type))
    try:
        engine = await supervisor.load(shelf.catalog.resolve(CHAT))
        request = ask("The capital of France is called what? " * 20, max_tokens=8, sampling=GREEDY)
        first, second = [await gather(engine, request) for _ in range(2)]
        assert "Paris" in first[0][0]
        assert second[0] == first[0]
        assert second[2].cached_tokens > 100
        need = supervisor.states()[CHAT].need
        assert need is not None
        numbers = 30 * 3 * (64 + 64) * 1024 * 2
        assert need.kv_cache == pytest.approx(2 * numbers * {"f16": 2, "q8_0": 34 / 32}[kv_type], abs=2**20)
    finally:
        await supervisor.close()
