"""Prompts and comparisons on the real built-in models: tokens, techniques, and a comparison from Python."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import pagoda
from pagoda.application.client import home_door
from pagoda.core.ports import Inference
from pagoda.core.settings import Settings
from tests.services import Service, running
from tests.unit.logic.prompts.sheets import SENTIMENT

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(240)]

VOTING = SENTIMENT.replace("name: sentiment", "name: voting").replace(
    "techniques:", "techniques:\n  self-consistency: {samples: 3}"
)
SIMILAR = SENTIMENT.replace("name: sentiment", "name: similar").replace("count: 2", "count: 1\n    choose: similar")


@pytest.fixture
def real(settings: Settings, models_directory: Path) -> Settings:
    """Settings that see the built-in models."""
    models = dataclasses.replace(settings.models, directory=str(models_directory))
    # Where answers that find no end do end, short enough for the embedding model, whose tokens are half as many again;
    # llama.cpp counts contexts in steps of 256.
    engines = dataclasses.replace(settings.engines, context=256)
    return dataclasses.replace(settings, models=models, engines=engines)


async def test_techniques_work_on_real_models(real: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(real, []) as service:
        await _techniques(service)

        @asynccontextmanager
        async def opened() -> AsyncIterator[Inference]:
            async with home_door(real, {}) as door:
                yield door

        monkeypatch.setenv("PAGODA_HOME", str(real.home))
        prompts = pagoda.PromptOptimizer(open_door=opened).add("Say yes. {{text}}", "a").add("Say no. {{text}}", "b")
        rows = [{"text": f"Case {number}.", "expected": "yes"} for number in range(2)]
        report = await prompts.aevaluate(rows, ["contains", "similarity:0.5"])
        assert report.complete
        assert [row.errors for row in report.variants] == [0, 0]
        assert all(scored.judged == 2 for row in report.variants for scored in row.scorers)


async def _techniques(service: Service) -> None:
    for source in (VOTING, SIMILAR):
        assert (await service.post("/api/v1/prompts", {"source": source}))[0] == 200
    values = {"text": "What a joy this film is."}
    status, shown = await service.post("/api/v1/prompts/similar/render", {"variables": values})
    assert (status, shown["examples"]) == (200, 1), shown
    assert "joy" in shown["messages"][1]["content"], "the example that is nearest"
    status, answer = await service.post("/api/v1/prompts/similar/run", {"variables": values})
    assert (status, answer["prompt_tokens"]) == (200, shown["tokens"]), "the count was right"
    _, answer = await service.post("/api/v1/prompts/voting/run", {"variables": values})
    assert (answer["vote"]["samples"], len(answer["vote"]["texts"])) == (3, 3)
