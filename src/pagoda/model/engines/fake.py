"""The fake engine: scripted and seeded, for tests and overhead benchmarks. It never stands in for a model by itself."""

from __future__ import annotations

import sys
from pathlib import Path

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import Score, Scores, Tokenize, TokenLogprob, Tokens
from pagoda.model.catalog.entry import ModelEntry, Scripted
from pagoda.model.engines.contract import Health, LaunchPlan, Memory, Profile, Room
from pagoda.model.engines.openai import OpenAIEngine

_CONTEXT = 4096
_DIMENSIONS = 8


class Fake:
    """Launches ``fake_child`` and speaks to it."""

    name = "fake"
    runs = "process"

    def memory(self, model: ModelEntry, path: Path | None, room: Room) -> Memory:
        """A small Python process."""
        del model, path, room
        return Memory(weights=0, kv_cache=0, overhead=40 * 1024 * 1024)

    def plan(self, model: ModelEntry, path: Path | None, room: Room, key: str) -> LaunchPlan:
        """Start ``fake_child`` with the entry's script."""
        del path
        if not isinstance(model.source, Scripted):
            raise InvalidRequest(f"{model.id} has no script for the fake engine.")
        return LaunchPlan(
            command=(sys.executable, "-m", "pagoda.model.engines.fake_child"),
            config={
                "script": dict(model.source.script),
                "key": key,
                "context": room.context or model.context or _CONTEXT,
                "dimensions": model.dimensions or _DIMENSIONS,
            },
        )

    async def connect(self, model: ModelEntry, url: str, key: str, room: Room) -> FakeEngine:
        """Speak to a started child."""
        engine = FakeEngine(model, url, key, room)
        engine.context = room.context or model.context or _CONTEXT
        return engine


class FakeEngine(OpenAIEngine):
    """The common tongue, with scoring and tokens of the fake tokenizer."""

    kind = "fake"

    def __init__(self, model: ModelEntry, url: str, key: str, room: Room) -> None:
        embeds = model.task == "embedding"
        super().__init__(
            model, url + "/v1", key, room, Profile(generate=not embeds, embed=embeds, continue_final=False)
        )
        self.root = url.rstrip("/")

    async def score(self, request: Score) -> Scores:
        """Scripted log-probabilities."""
        answer = await self.post_json(self.root + "/score", {"context": request.context, "text": request.text})
        tokens = tuple(TokenLogprob(item["token"], item["logprob"], tuple(item["bytes"])) for item in answer["tokens"])
        return Scores(model=self.model.id, tokens=tokens, prompt_tokens=answer["prompt_tokens"])

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Ids of words."""
        prompt = {"prompt": request.text or ""} if request.messages is None else {"messages": list(request.messages)}
        answer = await self.post_json(self.root + "/tokenize", prompt)
        return Tokens(model=self.model.id, ids=tuple(answer["tokens"]), context=self.context)

    async def health(self) -> Health:
        """The child's own counters."""
        answer = await self.request_json("GET", self.root + "/health")
        return Health(alive=True, running=answer["running"], waiting=answer["waiting"], progress=answer["progress"])
