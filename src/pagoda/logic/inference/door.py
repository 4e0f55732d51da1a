"""The door in the process that owns the engines. Guards will stand before and behind ``complete``.

Also the two verbs no engine has to have: documents are ranked by the similarity of their embeddings, and labels by the
probability that they continue the prompt.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import (
    Call,
    Classification,
    Classify,
    Delta,
    Detokenize,
    Embed,
    Embeddings,
    Event,
    Finish,
    Generation,
    OutputFormat,
    Ranking,
    Rerank,
    Score,
    Scores,
    Text,
    Tokenize,
    Tokens,
)
from pagoda.logic.inference.calling.calling import answer_with_tools, check_toolset, checked_calls
from pagoda.logic.inference.calling.wording import tells_of_calls
from pagoda.logic.inference.output import check_output, check_schema
from pagoda.logic.inference.reasoning import inline_reasoning, separate_reasoning
from pagoda.logic.quality.watch import Watch
from pagoda.service.contents.recorder import Recorder
from pagoda.service.dispatch import ModelService


class Door:
    """``Inference`` in process."""

    def __init__(self, service: ModelService, contents: Recorder, watch: Watch) -> None:
        self._service = service
        self._contents = contents
        self._watch = watch

    def complete(self, request: Generation, call: Call) -> AsyncIterator[Event]:
        """Stream an answer; one that breaks its demanded form ends with ``BadOutput`` instead of usage."""
        if (request.messages is None) == (request.prompt is None):
            raise InvalidRequest("Give either messages or a prompt.", param="messages")
        toolset = request.toolset
        if toolset is None and not (request.messages and tells_of_calls(request.messages)):
            events = self._formed(request, call)
        elif request.messages is None:
            raise InvalidRequest("Tools belong to a chat; give messages instead of a prompt.", param="tools")
        elif not self._service.models.resolve(request.model).calls_tools:
            events = answer_with_tools(self._formed, self._answer, request, call)
        elif toolset is None or toolset.mode == "none":
            events = self._formed(request, call)
        else:
            check_toolset(toolset)
            events = checked_calls(self._formed(request, call), toolset)
        return self._watch.heard(self._contents.heard(events, request, call), request, call)

    def _formed(self, request: Generation, call: Call) -> AsyncIterator[Event]:
        """The answer, checked against its demanded form."""
        if request.output is None:
            return self._answer(request, call)
        if request.output.schema is not None:
            check_schema(request.output.schema)
        return _checked(self._answer(request, call), request.n, request.output)

    def _answer(self, request: Generation, call: Call) -> AsyncIterator[Event]:
        """What the service gives, with the model's thinking where the request wants it."""
        events = self._service.generate(request, call)
        if request.messages is None:
            return events
        form = self._service.models.resolve(request.model).reasoning
        if request.reasoning == "inline":
            return inline_reasoning(events, request, form)
        return separate_reasoning(events, request, form) if form.separate else events

    async def embed(self, request: Embed, call: Call) -> Embeddings:
        """Vectors for texts."""
        if not request.inputs:
            raise InvalidRequest("There is nothing to embed.", param="input")
        return await self._service.embed(request, call)

    async def score(self, request: Score, call: Call) -> Scores:
        """Log-probabilities of a given text."""
        return await self._service.score(request, call)

    async def rerank(self, request: Rerank, call: Call) -> Ranking:
        """Cosine similarity of the query's and each document's embedding."""
        query = await self.embed(Embed(model=request.model, inputs=(request.query,), kind="query"), call)
        part = replace(call, parent=call.request_id)  # of the request that was counted just now
        documents = await self.embed(Embed(model=request.model, inputs=request.documents, kind="passage"), part)
        return Ranking(
            model=documents.model,
            scores=tuple(_cosine(query.vectors[0], vector) for vector in documents.vectors),
            prompt_tokens=query.prompt_tokens + documents.prompt_tokens,
        )

    async def classify(self, request: Classify, call: Call) -> Classification:
        """Softmax over the labels' log-probabilities, each as a whole, after the prompt."""
        if len(request.labels) < 2:
            raise InvalidRequest("Classification needs at least two labels.", param="labels")
        part = replace(call, parent=call.request_id)  # all labels together are one request
        scores = [
            await self.score(Score(model=request.model, context=request.prompt, text=label), part if number else call)
            for number, label in enumerate(request.labels)
        ]
        best = max(score.total for score in scores)
        weights = [math.exp(score.total - best) for score in scores]
        return Classification(
            model=scores[0].model,
            probabilities=tuple(weight / sum(weights) for weight in weights),
            prompt_tokens=sum(score.prompt_tokens for score in scores),
        )

    async def tokenize(self, request: Tokenize, call: Call) -> Tokens:
        """Token ids of a text or conversation."""
        if (request.messages is None) == (request.text is None):
            raise InvalidRequest("Give either messages or a text.", param="text")
        return await self._service.tokenize(request, call)

    async def detokenize(self, request: Detokenize, call: Call) -> Text:
        """The text of token ids."""
        return await self._service.detokenize(request, call)


async def _checked(events: AsyncIterator[Event], choices: int, wanted: OutputFormat) -> AsyncIterator[Event]:
    texts = [""] * choices
    async with aclosing(events) as source:  # type: ignore[type-var]
        async for event in source:
            match event:
                case Delta(index, text):
                    texts[index] += text
                case Finish(index, "stop"):
                    check_output(texts[index], wanted)
            yield event


def _cosine(left: bytes, right: bytes) -> float:
    a, b = array("f", left), array("f", right)
    norm = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norm if norm else 0.0
