"""LoRA adapters on a llama.cpp base that runs: attached by a drained relaunch, told apart, no request lost."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pagoda.core.settings import Settings
from pagoda.model.catalog.entry import Adapter, LocalPath, ModelEntry
from pagoda.model.export.gguf_file import write_gguf
from pagoda.model.export.merging import Trained, load_trained
from pagoda.model.quantize.forms import find_form
from tests.services import Service, running
from tests.tiny_models import one_torch_thread, save_adapter, save_checkpoint

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # peft's
]
PROMPT = "the quick brown fox answers"
TOKENS = 12


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_torch_thread():
        yield


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, its GGUF file, and two adapters of it."""
    folder = tmp_path_factory.mktemp(request.param)
    base = save_checkpoint(folder / "base", request.param)
    targets = [["q_proj", "k_proj", "down_proj"], ["v_proj", "o_proj"]]
    if request.param == "gpt2":
        targets = [["c_attn"], ["c_fc", "c_proj"]]
    save_adapter(base, folder / "first", targets[0])
    save_adapter(base, folder / "second", targets[1], use_rslora=True)
    plain = load_trained(base, None)
    write_gguf(base, plain.tokenizer, plain.stops, folder / "base.gguf", find_form("F32"), lambda *_: None)
    return folder


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def service(module_settings: Settings, places: Path) -> AsyncIterator[Service]:
    base = ModelEntry(
        id="base", task="chat", engine="llamacpp", source=LocalPath(path=str(places / "base.gguf")), context=512
    )
    others = [
        ModelEntry(id=name, task="chat", engine="llamacpp", source=Adapter(base="base", path=str(places / name)))
        for name in ("first", "second", "broken")
    ]
    shutil.copytree(places / "first", places / "broken", dirs_exist_ok=True)
    config = (places / "broken" / "adapter_config.json").read_text(encoding="utf-8")
    (places / "broken" / "adapter_config.json").write_text(config.replace('"use_dora": false', '"use_dora": true'))
    async with running(module_settings, [base, *others]) as found:
        yield found


def expected(places: Path, adapter: str | None) -> str:
    """What transformers and PEFT write greedily."""
    import torch

    trained: Trained = load_trained(places / "base", places / adapter if adapter else None)
    ids = torch.tensor([trained.tokenizer.encode(PROMPT)])
    out = trained.model.generate(input_ids=ids, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)
    return str(trained.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


async def ask(service: Service, model: str, tokens: int = TOKENS) -> tuple[int, Any]:
    body = {"model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0}
    return await service.post("/v1/completions", body)


async def test_adapters_are_attached_while_streams_run_and_none_is_lost(service: Service, places: Path) -> None:
    stream_body = {"model": "base", "prompt": PROMPT, "max_tokens": 300, "temperature": 1, "seed": 1}
    streams = [asyncio.create_task(service.stream("/v1/completions", stream_body)) for _ in range(3)]
    while not (await service.platform.states()).get("base", {}).get("in_flight"):
        if all(stream.done() for stream in streams):  # they were over before anybody looked
            break
        await asyncio.sleep(0.01)

    answers = await asyncio.gather(*(ask(service, name) for name in ("first", "base", "second", "base", "first")))

    for frames in await asyncio.gather(*streams):
        assert frames[-1] == "[DONE]"
        assert not any("error" in frame for frame in frames[:-1])
    wanted = {"base": expected(places, None), "first": expected(places, "first"), "second": expected(places, "second")}
    assert len(set(wanted.values())) == 3
    for name, (status, answer) in zip(("first", "base", "second", "base", "first"), answers, strict=True):
        assert status == 200, answer
        assert (name, answer["choices"][0]["text"].strip()) == (name, wanted[name].strip())
        assert answer["model"] == name


async def test_the_same_prompt_in_turn_never_mixes_adapters(service: Service, places: Path) -> None:
    for name in ("base", "first", "base", "second", "first"):
        status, answer = await ask(service, name)
        assert status == 200
        assert answer["choices"][0]["text"].strip() == expected(places, None if name == "base" else name).strip(), name


async def test_an_adapter_that_does_not_fit_is_refused_and_its_base_goes_on(service: Service) -> None:
    before = (await service.platform.states())["base"]

    status, answer = await ask(service, "broken")

    assert status == 400
    assert "use_dora, which llama.cpp has no form for" in answer["error"]["message"]
    after = (await service.platform.states())["base"]
    assert (after["pid"], after["loads"]) == (before["pid"], before["loads"])
