"""Several adapters on one base, in one process, chosen by the name of the model."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pagoda.core.errors import InvalidRequest, NotFound, Rejected, Unavailable
from pagoda.core.settings import Engines
from pagoda.core.types import Delta, Generation, Sampling, Score, Started, Usage
from pagoda.model.catalog.catalog import Catalog
from pagoda.model.catalog.entry import Adapter, ModelEntry, host_id
from pagoda.model.catalog.opening import Shelf, add_adapter
from pagoda.model.catalog.store import ModelStore
from pagoda.service.host import StartGround
from pagoda.service.supervisor import Supervisor
from tests.contract.transformers.conftest import CHECKPOINT, answer
from tests.services import fake_model

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.real_model,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # peft asks for it
]

PROMPT = "The weather today is"
NAMES = ("base", "formal", "rude.v2")


def make_adapter(model: Any, folder: Path, seed: int, scale: float = 0.05) -> None:
    """A LoRA adapter with random weights; the model is left with it inside."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    for name, weights in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weights, std=scale)
    adapted.save_pretrained(str(folder))


@pytest.fixture(scope="module")
def adapters(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path | None, str]]:
    """For each name its folder, and what plain peft answers with it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    root = tmp_path_factory.mktemp("adapters")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    made: dict[str, tuple[Path | None, str]] = {}
    for seed, name in enumerate(NAMES):
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
        folder = root / name
        if name != "base":
            make_adapter(model, folder, seed)
            model = PeftModel.from_pretrained(
                AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32), folder
            )
        out = model.generate(input_ids=ids, max_new_tokens=24, do_sample=False, pad_token_id=0)
        text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        made[name] = (None if name == "base" else folder, text)
    return made


@pytest.fixture(scope="module")
def own_shelf(shelf: Shelf, adapters: dict[str, tuple[Path | None, str]], tmp_path_factory: Any) -> Shelf:
    """The packaged models and the adapters, in a directory of this test's own."""
    directory = tmp_path_factory.mktemp("models")
    (directory / "files").symlink_to(shelf.store.directory / "files")
    catalog = Catalog(directory)
    mine = Shelf(catalog, ModelStore(directory, catalog.find))
    for name, (folder, _) in adapters.items():
        if folder is not None:
            add_adapter(mine, name, folder, CHECKPOINT)
    return mine


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def one_base(own_shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Any:
    ground = StartGround(
        locate=own_shelf.store.locate,
        logs=tmp_path_factory.mktemp("logs"),
        environment={},
        start_seconds=90,
        find=own_shelf.catalog.find,
    )
    supervisor = Supervisor(ground, Engines(threads=2, parallel=2, context=256))
    yield supervisor
    await supervisor.close()


def named(name: str) -> str:
    return CHECKPOINT if name == "base" else name


def ask(name: str, **fields: Any) -> Generation:
    given: dict[str, Any] = {"max_tokens": 24, "sampling": Sampling(temperature=0)} | fields
    return Generation(model=named(name), prompt=PROMPT, **given)


async def ask_by_name(supervisor: Supervisor, shelf: Shelf, name: str, **fields: Any) -> str:
    engine: Any = await supervisor.load(shelf.catalog.resolve(named(name)))
    return await answer(engine, ask(name, **fields))


async def test_base_and_adapters_side_by_side_answer_as_plain_peft_does(
    one_base: Supervisor, own_shelf: Shelf, adapters: dict[str, tuple[Path | None, str]]
) -> None:
    expected = [text for _, text in adapters.values()]
    assert len(set(expected)) == 3
    order = [*NAMES, *reversed(NAMES), *NAMES]
    found = await asyncio.gather(*(ask_by_name(one_base, own_shelf, name) for name in order))
    assert found == [*expected, *reversed(expected), *expected]
    assert list(one_base.states()) == [CHECKPOINT], "one process for all"


async def test_an_adapter_is_added_while_its_base_answers_and_no_answer_is_lost(
    one_base: Supervisor, own_shelf: Shelf, adapters: dict[str, tuple[Path | None, str]], tmp_path: Path
) -> None:
    folder, wanted = adapters["rude.v2"]
    assert folder is not None
    engine = await one_base.load(own_shelf.catalog.resolve(CHECKPOINT))
    begun = asyncio.Event()

    async def stream() -> str:
        text = ""
        async for event in engine.generate(ask("base")):
            if isinstance(event, Delta):
                text += event.text
                begun.set()
        return text

    streams = [asyncio.create_task(stream()) for _ in range(2)]
    await begun.wait()
    add_adapter(own_shelf, "late", shutil.copytree(folder, tmp_path / "late"), CHECKPOINT)
    assert await ask_by_name(one_base, own_shelf, "late") == wanted
    assert await asyncio.gather(*streams) == [adapters["base"][1]] * 2
    assert list(one_base.states()) == [CHECKPOINT], "the process that was there"


async def test_an_answer_says_which_adapter_gave_it(one_base: Supervisor, own_shelf: Shelf) -> None:
    for name in NAMES:
        engine = await one_base.load(own_shelf.catalog.resolve(named(name)))
        events = [event async for event in engine.generate(ask(name, max_tokens=2))]
        assert isinstance(events[0], Started)
        assert events[0].model == named(name)


async def test_no_prefix_of_one_adapter_serves_another(one_base: Supervisor, own_shelf: Shelf) -> None:
    long = "A long preface about lighthouses and the sea. " * 8

    async def cached(name: str) -> int:
        engine = await one_base.load(own_shelf.catalog.resolve(named(name)))
        request = Generation(model=named(name), prompt=long, max_tokens=2, sampling=Sampling(temperature=0))
        (usage,) = [event async for event in engine.generate(request) if isinstance(event, Usage)]
        return usage.cached_tokens

    assert [await cached(name) for name in ("formal", "formal", "base", "base", "formal")][:3] == [0, 0, 0]
    assert await cached("base") > 0
    assert await cached("rude.v2") == 0


async def test_a_text_is_scored_by_its_adapter(
    one_base: Supervisor, own_shelf: Shelf, adapters: dict[str, tuple[Path | None, str]]
) -> None:
    totals = {}
    for name in NAMES:
        engine = await one_base.load(own_shelf.catalog.resolve(named(name)))
        scores = await engine.score(Score(model=named(name), context=PROMPT, text=adapters[name][1]))
        events = [event async for event in engine.generate(ask(name, top_logprobs=0))]
        drawn = sum(token.logprob for event in events if isinstance(event, Delta) for token in event.logprobs)
        assert scores.total == pytest.approx(drawn, abs=0.02)
        totals[name] = scores.total
    assert len({round(total, 3) for total in totals.values()}) == 3


async def test_an_adapter_trained_again_is_loaded_again(
    one_base: Supervisor, own_shelf: Shelf, adapters: dict[str, tuple[Path | None, str]], tmp_path: Path
) -> None:
    folder, old = adapters["formal"]
    other, new = adapters["rude.v2"]
    assert folder is not None
    assert other is not None
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    add_adapter(own_shelf, "mine", mine, CHECKPOINT)
    assert await ask_by_name(one_base, own_shelf, "mine") == old
    for path in other.iterdir():
        shutil.copyfile(path, mine / path.name)  # not copystat: the time is now
    assert await ask_by_name(one_base, own_shelf, "mine") == new


async def test_an_adapter_that_does_not_fit_is_refused_and_harms_nobody(
    one_base: Supervisor, own_shelf: Shelf, adapters: dict[str, tuple[Path | None, str]], tiny: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    stranger = tmp_path / "stranger"
    make_adapter(AutoModelForCausalLM.from_pretrained(tiny), stranger, 7)
    add_adapter(own_shelf, "stranger", stranger, CHECKPOINT)
    for _ in range(2):
        with pytest.raises(Rejected, match="does not fit its base model"):
            await ask_by_name(one_base, own_shelf, "stranger")
    for name in NAMES:
        assert await ask_by_name(one_base, own_shelf, name) == adapters[name][1]


async def test_an_adapter_whose_folder_is_gone_says_so(one_base: Supervisor, own_shelf: Shelf, tmp_path: Path) -> None:
    gone = ModelEntry(
        id="gone", task="chat", engine="transformers", source=Adapter(base=CHECKPOINT, path=str(tmp_path / "gone"))
    )
    with pytest.raises(Unavailable, match="is not in"):
        await one_base.load(gone)


async def test_what_is_no_adapter_is_refused_by_name(own_shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"no adapter_config\.json"):
        add_adapter(own_shelf, "empty", tmp_path, CHECKPOINT)
    (tmp_path / "adapter_config.json").write_text(json.dumps({}))
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(InvalidRequest, match="pickle"):
        add_adapter(own_shelf, "pickled", tmp_path, CHECKPOINT)
    with pytest.raises(NotFound):
        add_adapter(own_shelf, "orphan", tmp_path, "no-such-model")
    with pytest.raises(InvalidRequest, match="an adapter itself"):
        add_adapter(own_shelf, "second", tmp_path, "formal")
    with pytest.raises(InvalidRequest, match="embedding"):
        add_adapter(own_shelf, "vectors", tmp_path, "all-minilm-l6-v2")


async def test_an_engine_without_adapters_refuses_them(
    supervise: Callable[[], Supervisor], shelf: Shelf, tmp_path: Path
) -> None:
    shelf.catalog.lend(fake_model("scripted"))
    supervisor = supervise()
    try:
        source = Adapter(base="scripted", path=str(tmp_path))
        entry = ModelEntry(id="on-scripted", task="chat", engine="fake", source=source)
        assert host_id(entry) == "scripted"
        with pytest.raises(InvalidRequest, match="takes none"):
            await supervisor.load(entry)
    finally:
        await supervisor.close()
