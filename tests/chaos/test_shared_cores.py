"""Real engines that compute at once on the same few cores: nobody starves, and one bad text spoils nobody's request."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pagoda.core.settings import Settings
from pagoda.model.catalog.entry import LocalPath, ModelEntry
from tests.services import Service, running

CHAT, EMBEDDING = "smollm2-135m-instruct", "all-minilm-l6-v2"
NO_END = {"0": -100, "2": -100}

pytestmark = pytest.mark.real_model


def model_at(name: str, folder: Path, **fields: Any) -> ModelEntry:
    """A packaged model's file under a name of its own."""
    path = next(folder.glob("*.gguf"))
    return ModelEntry(id=name, engine="llamacpp", source=LocalPath(path=str(path)), **fields)


async def test_two_engines_that_compute_at_once_both_make_progress(settings: Settings, models_directory: Path) -> None:
    """Both streams are begun before either is done, and neither gets less than a twentieth of the other's tokens."""
    engines = dataclasses.replace(settings.engines, context=1024, parallel=1)
    folder = models_directory / "files" / CHAT
    models = [model_at(name, folder, task="chat") for name in ("left", "right")]
    async with running(dataclasses.replace(settings, engines=engines), models) as service:
        await asyncio.gather(*(service.chat("Hello", model=model.id, max_tokens=1) for model in models))
        counts = {"left": 0, "right": 0}
        when_first_ended: dict[str, int] = {}

        async def stream(name: str) -> None:
            body = {
                "model": name,
                "messages": [{"role": "user", "content": "Tell me about the history of tea."}],
                "max_tokens": 100,
                "temperature": 0,
                "logit_bias": NO_END,
                "stream": True,
            }
            async with service.session.post(service.url + "/v1/chat/completions", json=body) as response:
                assert response.status == 200, await response.text()
                async for line in response.content:
                    counts[name] += b'"content":"' in line and b'"content":""' not in line
            if not when_first_ended:
                when_first_ended.update(counts)

        await asyncio.wait_for(asyncio.gather(stream("left"), stream("right")), 200)
        assert min(counts.values()) >= 90, "both were written to their end"
        assert min(when_first_ended.values()) >= max(when_first_ended.values()) / 20, when_first_ended


async def test_of_many_texts_of_many_clients_only_the_over_long_one_fails(
    settings: Settings, models_directory: Path
) -> None:
    """They are computed together, in the engine's batches; each answer is the one its text gets alone."""
    folder = models_directory / "files" / EMBEDDING
    model = model_at("vectors", folder, task="embedding", context=512, dimensions=384)
    async with running(settings, [model]) as service:
        texts = [f"Note {number} of the northern towns." for number in range(24)]
        texts[13] = "far too long " * 400
        alone = await embed(service, texts[5])
        answers = await asyncio.gather(*(embed(service, text) for text in texts))
        assert [status for status, _ in answers] == [400 if place == 13 else 200 for place in range(24)]
        assert answers[13][1]["error"]["code"] == "context_length_exceeded"
        vectors = [answer["data"][0]["embedding"] for status, answer in answers if status == 200]
        assert len({tuple(vector) for vector in vectors}) == 23, "no answer is another's"
        assert answers[5][1]["data"][0]["embedding"] == pytest.approx(alone[1]["data"][0]["embedding"], abs=2e-3)
        assert (await embed(service, "and afterwards"))[0] == 200


async def embed(service: Service, text: str) -> tuple[int, Any]:
    """One text's answer, computed anew."""
    return await service.post("/v1/embeddings", {"model": "vectors", "input": text}, **{"Cache-Control": "no-store"})
