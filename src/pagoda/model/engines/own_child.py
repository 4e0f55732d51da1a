"""How engine processes of our own are spoken to, beside what OpenAI's API has; see ``child_http``."""

from __future__ import annotations

from typing import Any

from pagoda.core.types import Detokenize, Text, Tokenize, Tokens
from pagoda.model.catalog.entry import ModelEntry
from pagoda.model.engines.contract import Health, Profile, Room, Vitals
from pagoda.model.engines.openai import OpenAIEngine


class OwnChild(OpenAIEngine):
    """The common tongue, with tokens and the child's own counters."""

    def __init__(self, model: ModelEntry, url: str, key: str, room: Room, profile: Profile) -> None:
        super().__init__(model, url + "/v1", key, room, profile)
        self.root = url.rstrip("/")

    async def ask_context(self) -> None:
        """Learn the context of the child."""
        self.context = (await self.ask_about_itself(self.root + "/health"))["context"]

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Ids of a text."""
        text, form = await self.tokenized(request)
        answer = await self.post_json(self.root + "/tokenize", {"content": text, "pieces": request.pieces, **form})
        pieces = tuple(answer["pieces"]) if request.pieces else None
        return Tokens(model=self.model.id, ids=tuple(answer["tokens"]), context=self.context, pieces=pieces)

    async def tokenized(self, request: Tokenize) -> tuple[str, dict[str, Any]]:
        """The text to split into tokens, and what is to be made of special ones."""
        return request.text or "", {"add_special": request.special, "parse_special": request.special}

    async def detokenize(self, request: Detokenize) -> Text:
        """The text of token ids."""
        answer = await self.post_json(self.root + "/detokenize", {"tokens": list(request.ids)})
        return Text(model=self.model.id, text=answer["content"])

    async def health(self) -> Health:
        """The child's own counters."""
        answer = await self.request_json("GET", self.root + "/health")
        return Health(alive=True, running=answer["running"], waiting=answer["waiting"], progress=answer["progress"])

    async def vitals(self) -> Vitals:
        """The child's own counters; an embedder has no cache."""
        answer = await self.request_json("GET", self.root + "/health")
        return Vitals(answer["running"], answer["waiting"], answer.get("kv_used"))
