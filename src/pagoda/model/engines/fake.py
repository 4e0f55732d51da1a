"""The fake engine: scripted and seeded, for tests and overhead benchmarks. It never stands in for a model by itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import Detokenize, Score, Scores, Text, Tokenize, TokenLogprob, Tokens
from pagoda.model.catalog.entry import ModelEntry, Scripted
from pagoda.model.engines.contract import Health, LaunchPlan, Memory, Profile, Room
from pagoda.model.engines.openai import OpenAIEngine

_CONTEXT = 4096
_DIMENSIONS = 8


class Fake:
    """Launches ``fake_child`` and speaks to it."""

    name = "fake"
    runs = "process"
    parallel = 1024

    def memory(self, model: ModelEntry, path: Path | None, room: Room) -> Memory:
        """A small Python process, or what the script says it needs (``memory``, bytes)."""
        del path, room
        weights = model.source.script.get("memory", 0) if isinstance(model.source, Scripted) else 0
        return Memory(weights=int(str(weights)), kv_cache=0, overhead=40 * 1024 * 1024)

    def capacity(self, model: ModelEntry, room: Room) -> int:
        """As the script says (``parallel``), else as many as one likes, whatever settings say of real engines."""
        del room
        slots = model.source.script.get("parallel", self.parallel) if isinstance(model.source, Scripted) else 1
        return int(str(slots))

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
        continues = not (isinstance(model.source, Scripted) and model.source.script.get("stubborn"))
        profile = Profile(generate=not embeds, embed=embeds, continue_final=continues, tool_calls=model.calls_tools)
        super().__init__(model, url + "/v1", key, room, profile)
        self.root = url.rstrip("/")

    async def score(self, request: Score) -> Scores:
        """Scripted log-probabilities."""
        answer = await self.post_json(self.root + "/score", {"context": request.context, "text": request.text})
        tokens = tuple(TokenLogprob(item["token"], item["logprob"], tuple(item["bytes"])) for item in answer["tokens"])
        return Scores(model=self.model.id, tokens=tokens, prompt_tokens=answer["prompt_tokens"])

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Ids of words."""
        prompt: dict[str, Any] = {"prompt": request.text or ""}
        if request.messages is not None:
            prompt = {"messages": list(request.messages), "continue_final_message": request.continue_final}
        answer = await self.post_json(self.root + "/tokenize", prompt)
        pieces = tuple(answer["pieces"]) if request.pieces else None
        return Tokens(model=self.model.id, ids=tuple(answer["tokens"]), context=self.context, pieces=pieces)

    async def detokenize(self, request: Detokenize) -> Text:
        """The words of ids."""
        answer = await self.post_json(self.root + "/detokenize", {"tokens": list(request.ids)})
        return Text(model=self.model.id, text=answer["content"])

    async def health(self) -> Health:
        """The child's own counters."""
        answer = await self.request_json("GET", self.root + "/health")
        return Health(alive=True, running=answer["running"], waiting=answer["waiting"], progress=answer["progress"])
