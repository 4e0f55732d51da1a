"""The door of a Pagoda on another machine, through its public API: text and embeddings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import (
    Call,
    Classification,
    Classify,
    Embed,
    Embeddings,
    Event,
    Generation,
    Ranking,
    Rerank,
    Score,
    Scores,
    Tokenize,
    Tokens,
)
from pagoda.model.catalog.entry import ModelEntry, RemoteAddress, Task
from pagoda.model.engines.contract import Profile, Room
from pagoda.model.engines.remote import RemoteEngine

_SILENCE_SECONDS = 600.0
_ROOM = Room(threads=0, parallel=0, context=0, silence_seconds=_SILENCE_SECONDS)


class _FarModel(RemoteEngine):
    """A model of the other Pagoda; an empty name means its default."""

    async def generation_body(self, request: Generation) -> tuple[str, dict[str, Any]]:
        """As to any address, without naming a model where none was chosen."""
        path, body = await super().generation_body(request)
        return path, _unnamed(body)

    def embedding_body(self, request: Embed) -> dict[str, Any]:
        """As to any address; the other side applies the prefix of the input's kind."""
        return _unnamed({**super().embedding_body(request), "input_type": request.kind})


def _unnamed(body: dict[str, Any]) -> dict[str, Any]:
    return body if body.get("model") else {key: value for key, value in body.items() if key != "model"}


class FarDoor:
    """``Inference`` over the public API of the service at ``url`` (without ``/v1``)."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/") + "/v1"
        self._key = key
        self._models: dict[tuple[str, Task], _FarModel] = {}

    async def close(self) -> None:
        """Close the connections."""
        for model in self._models.values():
            await model.close()

    def complete(self, request: Generation, call: Call) -> AsyncIterator[Event]:
        """Stream an answer."""
        del call
        return self._model(request.model, "chat").generate(request)

    async def embed(self, request: Embed, call: Call) -> Embeddings:
        """Vectors for texts."""
        del call
        return await self._model(request.model, "embedding").embed(request)

    async def score(self, request: Score, call: Call) -> Scores:
        """Not part of the public API."""
        raise self._missing("score", request, call)

    async def rerank(self, request: Rerank, call: Call) -> Ranking:
        """Not part of the public API yet."""
        raise self._missing("rerank", request, call)

    async def classify(self, request: Classify, call: Call) -> Classification:
        """Not part of the public API."""
        raise self._missing("classify", request, call)

    async def tokenize(self, request: Tokenize, call: Call) -> Tokens:
        """Not part of the public API yet."""
        raise self._missing("tokenize", request, call)

    def _missing(self, verb: str, *asked: object) -> InvalidRequest:
        del asked
        return InvalidRequest(f"The service at {self._url} offers no {verb} over HTTP; connect on its own machine.")

    def _model(self, name: str, task: Task) -> _FarModel:
        if (name, task) not in self._models:
            source = RemoteAddress(url=self._url, model=name)
            entry = ModelEntry(id=name or "the default model", task=task, engine="remote", source=source)
            model = _FarModel(entry, self._url, self._key, _ROOM, Profile())
            model.remote_name = name
            self._models[name, task] = model
        return self._models[name, task]
