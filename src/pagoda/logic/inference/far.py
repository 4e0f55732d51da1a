"""The door of a Pagoda on another machine, through its public API: all but scores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import (
    Call,
    Classification,
    Classify,
    Detokenize,
    Embed,
    Embeddings,
    Event,
    Generation,
    Ranking,
    Rerank,
    Score,
    Scores,
    Text,
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
        if request.messages is not None and request.reasoning != "separate":
            body |= {"include_reasoning": False} if request.reasoning == "hidden" else {"reasoning_format": "none"}
        return path, _unnamed(body)

    def embedding_body(self, request: Embed) -> dict[str, Any]:
        """As to any address; the other side applies the prefix of the input's kind."""
        return _unnamed({**super().embedding_body(request), "input_type": request.kind})


def _unnamed(body: dict[str, Any]) -> dict[str, Any]:
    return body if body.get("model") else {key: value for key, value in body.items() if key != "model"}


class FarDoor:
    """``Inference`` over the public API of the service at ``url`` (without ``/v1``)."""

    def __init__(self, url: str, key: str) -> None:
        self._root = url.rstrip("/")
        self._url = self._root + "/v1"
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

    async def rerank(self, request: Rerank, call: Call) -> Ranking:
        """Documents scored against a query."""
        del call
        body = {"model": request.model, "query": request.query, "documents": list(request.documents)}
        model = self._model(request.model, "embedding")
        answer = await model.post_json("/rerank", _unnamed(body))
        scores = {row["index"]: row["relevance_score"] for row in answer["results"]}
        return Ranking(
            model=answer["model"],
            scores=tuple(scores[place] for place in range(len(request.documents))),
            prompt_tokens=answer["usage"]["prompt_tokens"],
        )

    async def tokenize(self, request: Tokenize, call: Call) -> Tokens:
        """Token ids of a text or conversation."""
        del call
        body: dict[str, Any] = {"model": request.model, "return_token_strs": request.pieces}
        if request.messages is None:
            body |= {"prompt": request.text, "add_special_tokens": request.special}
        else:
            body |= {"messages": list(request.messages), "continue_final_message": request.continue_final}
        answer = await self._model(request.model, "chat").post_json(self._root + "/tokenize", _unnamed(body))
        return Tokens(
            model=request.model,
            ids=tuple(answer["tokens"]),
            context=answer["max_model_len"],
            pieces=tuple(answer["token_strs"]) if request.pieces else None,
        )

    async def detokenize(self, request: Detokenize, call: Call) -> Text:
        """The text of token ids."""
        del call
        body = _unnamed({"model": request.model, "tokens": list(request.ids)})
        answer = await self._model(request.model, "chat").post_json(self._root + "/detokenize", body)
        return Text(model=request.model, text=answer["prompt"])

    async def score(self, request: Score, call: Call) -> Scores:
        """Not part of the public API."""
        raise self._missing("score", request, call)

    async def classify(self, request: Classify, call: Call) -> Classification:
        """Not part of the public API."""
        raise self._missing("classify", request, call)

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
