"""A service in this process whose pools are written as in a file."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pagoda.core.pool_settings import read_pools
from pagoda.core.settings import Routing, Settings
from pagoda.model.catalog.entry import ModelEntry
from tests.services import Service, fake_model, running

QUICK = Routing(health_seconds=0.05, silence_seconds=0.3, misses=2, open_seconds=0.3, backoff_seconds=0.01)


@asynccontextmanager
async def pooled(
    settings: Settings,
    pools: Mapping[str, Any],
    *models: ModelEntry,
    routing: Routing = QUICK,
    cached: bool = False,
    scripted: bool = True,
) -> AsyncIterator[Service]:
    """The service, with models that the pools may name; answers come from replicas unless they may be ``cached``."""
    found, mistakes = read_pools(dict(pools), "the test")
    assert not mistakes
    wanted = dataclasses.replace(
        settings, pools=found, routing=routing, cache=dataclasses.replace(settings.cache, enabled=cached)
    )
    async with running(wanted, [*models, fake_model("other")] if scripted else []) as service:
        yield service


def ask(model: str = "chat", **fields: Any) -> dict[str, Any]:
    """A greedy question."""
    return {"model": model, "messages": [{"role": "user", "content": "go"}], "temperature": 0, **fields}


def told(frames: list[Any]) -> dict[str, Any]:
    """What a stream said: its text, log-probabilities, end and usage, or its error. Refuses a disorder of frames."""
    found: dict[str, Any] = {"text": "", "finish": None, "usage": None, "logprobs": [], "error": None, "models": set()}
    for frame in frames:
        if frame == "[DONE]":
            assert frame is frames[-1]
            continue
        if "error" in frame:
            found["error"] = frame["error"]["code"]
            continue
        found["models"].add(frame["model"])
        if frame.get("usage"):
            assert found["finish"], "usage before the end"
            found["usage"] = {name: frame["usage"][name] for name in ("prompt_tokens", "completion_tokens")}
        for choice in frame["choices"]:
            assert found["finish"] is None, "text after the end"
            found["text"] += choice["text"] if "text" in choice else choice["delta"].get("content") or ""
            shown = choice.get("logprobs") or {}
            found["logprobs"] += [entry["token"] for entry in shown.get("content") or ()] or shown.get("tokens", [])
            found["finish"] = choice["finish_reason"]
    return found
